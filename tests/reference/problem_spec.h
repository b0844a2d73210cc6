// What a test says about a random decode problem; Problem (problem.h) makes the tensors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "flash_mla/types.h"

namespace flash_mla::reference {

// What unused memory holds.
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

// In a line, for a failing test: "bf16 b 3 [65, 0, 130] s_q 2 heads 4/2 ...".
[[nodiscard]] std::string describe(const ProblemSpec& spec);

}  // namespace flash_mla::reference
