// Step 5 of docs/algorithm.md: online softmax of a chunk of scores, in base 2, sixteen rows at a time.
#pragma once

#include <cstdint>

#include "cpu/products.h"

namespace flash_mla::cpu {

// Per row of a tile: what online softmax carries from chunk to chunk.
struct RowState {
  float* max = nullptr;     // of scale_log2e * score; -inf while no token was seen
  float* sum = nullptr;     // of 2^(scale_log2e * score - max)
  float* factor = nullptr;  // by how much the last chunk shrank what was accumulated before
};

struct ScoreChunk {
  const float* scores = nullptr;          // S^T [tokens, rows]
  void* weights = nullptr;                // P^T [tokens, rows], bf16 or fp32
  const std::int32_t* visible = nullptr;  // [rows] tokens of the chunk that a row sees, 0 .. tokens
  int rows = 0;                           // multiple of kRowGranule
  int tokens = 0;
  float scale_log2e = 0;  // > 0
};

// Turns scores into weights and updates the state. The result says whether any factor differs from 1.
bool softmax(const ScoreChunk& chunk, ComputeType type, const RowState& state);

// 2^x for each of n values (tests look at its error): relative error below 2e-7 for -126 <= x <= 126, 0 below, NaN
// kept.
void exp2_values(const float* x, float* result, int n);

}  // namespace flash_mla::cpu
