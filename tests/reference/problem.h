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
#include <span>
#include <string>
#include <vector>

#include "flash_mla/decode.h"
#include "reference/buffer.h"
#include "reference/problem_spec.h"
#include "reference/random.h"

namespace flash_mla::reference {

// `layout`: tables and lengths alone; the memory of the tensors is never touched, for tests that fill a copy elsewhere.
enum class Contents : std::uint8_t { all, layout };

class Problem {
 public:
  explicit Problem(const ProblemSpec& spec, Contents contents = Contents::all);

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
