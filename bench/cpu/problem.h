// A random decode step for measurements: bf16 cache in scattered pages, tokens and queries drawn from a normal
// distribution, never zeros; and the same numbers in fp32 for the baseline.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "flash_mla/flash_mla.h"

namespace flash_mla::bench {

struct Shape {
  std::string name;
  int heads = 128;
  int seqlen_q = 1;
  std::vector<std::int32_t> lengths;
};

// Lengths as a chat service sees them: log-normal with median 1000 and 99th percentile 7000.
std::vector<std::int32_t> conversation_lengths(int batch, std::uint64_t seed);

struct Problem {
  explicit Problem(const Shape& shape);
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  [[nodiscard]] double flop() const;  // of the products, for the tokens that rows see
  [[nodiscard]] double cache_bytes() const;
  [[nodiscard]] std::int64_t rows() const;

  Shape shape;
  std::int64_t table_columns = 0;
  std::vector<std::uint16_t> q, out;  // bf16
  std::vector<float> q_f32, out_f32, lse;
  PagedKvCache storage, storage_f32;  // of one layer, as an engine has it
  TensorView cache, cache_f32;
  std::vector<std::int32_t> block_table;
  float softmax_scale = 0;
};

// plan, schedule and decode over a problem, as an engine does it.
class Step {
 public:
  explicit Step(Problem& problem);
  void schedule();
  void decode();

 private:
  Problem& problem_;
  Plan plan_;
  std::vector<char> schedule_memory_, scratch_memory_;
  MemoryView schedule_view_, scratch_view_;
};

}  // namespace flash_mla::bench
