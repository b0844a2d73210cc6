// A random decode problem with traps, from a seed: what a test says in a ProblemSpec becomes tensors in buffers of
// exactly their size, as hostile as the API's contract allows.
//   - pages in random order, over a pool that also holds pages of nobody
//   - NaN and infinities in every page, token and gap between rows that no row may read
//   - block-table entries past the end of a request are -1, INT_MAX or past the pool
//   - out and lse are full of NaN; so are their gaps, which must stay as they are (damage())
// Buffers are apart from views, so that a device test can upload them and relocate() the arguments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "flash_mla/decode.h"
#include "reference/random.h"

namespace flash_mla::reference {

enum class Poison : std::uint8_t { zero, nan, inf, mixed };

struct ProblemSpec {
  DType dtype = DType::bf16;
  std::vector<std::int32_t> lengths;  // tokens of each request; its size is b
  bool ragged = false;
  std::int32_t seqlen_q = 1;          // uniform: s_q
  std::vector<std::int32_t> queries;  // ragged: query tokens of each request
  std::int32_t padding_queries = 0;   // ragged: query tokens of q and out past the last request's
  std::int32_t num_heads_q = 16;
  std::int32_t num_heads_kv = 1;
  std::int32_t page_size = 64;
  bool causal = true;
  std::int32_t num_parts = 0;

  bool joint_q = true;  // one tensor of 576, or two of 512 and 64
  bool joint_cache = true;
  std::int32_t row_gap = 0;          // elements between the rows of q, out and lse; on CUDA multiples of 16 bytes
  std::int32_t layers = 1;           // > 1: the cache is the last of several layers, interleaved page by page
  bool heads_first = false;          // cache memory in the order [page, head, token, column]
  std::int32_t offset_elements = 0;  // of the first element of q, cache and out in their buffers; as row_gap
  bool exact_table = true;           // as wide as the longest request, else three columns more
  std::int32_t spare_pages = 2;
  bool want_lse = true;
  Poison poison = Poison::mixed;

  float q_scale = 1;        // standard deviation of q's elements; the cache's is 1
  float softmax_scale = 0;  // 0: 1 / sqrt(192)
  std::uint64_t seed = 1;
};

// Memory of exactly `bytes` bytes on the heap, so that AddressSanitizer sees the first byte past it.
class Buffer {
 public:
  static constexpr std::size_t kAlignment = 128;

  Buffer(std::string name, std::int64_t bytes);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::byte* data() const { return data_.get(); }
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }
  [[nodiscard]] MemoryView memory() const { return {data_.get(), bytes_, {}}; }
  void fill_random(std::uint64_t seed);

 private:
  struct Free {
    void operator()(std::byte* data) const { ::operator delete[](data, std::align_val_t(kAlignment)); }
  };
  std::string name_;
  std::unique_ptr<std::byte[], Free> data_;
  std::int64_t bytes_;
};

class Problem {
 public:
  explicit Problem(const ProblemSpec& spec);

  [[nodiscard]] const ProblemSpec& spec() const { return spec_; }
  [[nodiscard]] std::int32_t batch() const { return static_cast<std::int32_t>(spec_.lengths.size()); }
  [[nodiscard]] std::int64_t total_q() const;  // with padding
  [[nodiscard]] std::int32_t num_pages() const { return num_pages_; }

  // Tight bounds for this problem.
  [[nodiscard]] PlanConfig plan_config() const;
  [[nodiscard]] ScheduleArgs schedule_args() const;
  // A test may change elements behind the views, then accept_inputs().
  [[nodiscard]] const DecodeArgs& decode_args() const { return args_; }

  // Fills out, lse and the gaps between their rows with NaN again.
  void clear_results();
  // Names a buffer that decode should have left alone and did not: an input, or the gaps of out or lse. Empty when
  // there is none.
  [[nodiscard]] std::string damage() const;
  void accept_inputs() { input_hashes_ = hash_inputs(); }

  // All memory that the arguments point to; the results come last.
  [[nodiscard]] std::span<const Buffer> buffers() const { return buffers_; }
  // The same arguments in another memory: bases[i] stands for buffers()[i].data().
  [[nodiscard]] DecodeArgs relocate(const DecodeArgs& args, std::span<void* const> bases, Device device) const;
  [[nodiscard]] ScheduleArgs relocate(const ScheduleArgs& args, std::span<void* const> bases, Device device) const;

 private:
  std::byte* add_buffer(const char* name, std::int64_t bytes);
  TensorView add_integers(const char* name, const std::vector<std::int32_t>& values,
                          std::initializer_list<std::int64_t> dims);
  TensorView add_rows(const char* name, std::int64_t columns);
  TensorView add_lse();
  TensorView add_cache(const char* name, std::int64_t columns);
  TensorView add_block_table(Random& random);
  void poison(const TensorView& view, Random& random) const;
  void fill_queries(const TensorView& view, Random& random) const;
  void fill_cache(const TensorView& view, Random& random) const;
  [[nodiscard]] bool gaps_intact(const TensorView& result) const;
  [[nodiscard]] const Buffer& buffer_of(const TensorView& view) const;
  [[nodiscard]] TensorView relocate(TensorView view, std::span<void* const> bases, Device device) const;
  [[nodiscard]] std::vector<std::uint64_t> hash_inputs() const;

  ProblemSpec spec_;
  std::int32_t num_pages_ = 0;
  std::vector<Buffer> buffers_;
  std::size_t num_inputs_ = 0;               // buffers before the results
  std::vector<std::uint64_t> input_hashes_;  // of those
  DecodeArgs args_;
};

}  // namespace flash_mla::reference
