#include "cpu/epilogue.h"

#include <cstring>

#include "core/online_softmax.h"
#include "core/partial.h"
#include "cpu/problem_access.h"
#include "cpu/rows.h"

namespace flash_mla::cpu {
namespace {

void write_lse(const DecodeProblem& problem, const Work& work, std::int32_t request, QueryHead at, float lse) {
  if (!problem.lse.data) return;
  *reinterpret_cast<float*>(row_address(problem.lse, work, request, at, sizeof(float))) = lse_for_api(lse);
}

// One row of the result: out = factor * o.
void write_row(const DecodeProblem& problem, const Work& work, std::int32_t request, QueryHead at, const float* o,
               float factor, float lse) {
  char* out = row_address(problem.out, work, request, at, size_in_bytes(problem.dtype));
  scale_to(o, factor, out, problem.dtype, kLatentDim);
  write_lse(problem, work, request, at, lse);
}

void write_empty_row(const DecodeProblem& problem, const Work& work, std::int32_t request, QueryHead at) {
  const std::int64_t element = size_in_bytes(problem.dtype);
  std::memset(row_address(problem.out, work, request, at, element), 0, kLatentDim * element);
  write_lse(problem, work, request, at, kNegativeInfinity);
}

}  // namespace

void write_tile(const DecodeProblem& problem, const Work& work, const Tile& tile, const RowState& state,
                const float* accumulated, const Partials& partials) {
  for (std::int32_t i = 0; i < tile.num_rows; ++i) {
    const OnlineSoftmax row{state.max[i], state.sum[i]};
    const float* o = accumulated + std::int64_t{i} * kLatentDim;
    const QueryHead at = unpack_row(tile.first_row + i, tile.kv_head, work.heads_per_kv);
    if (!tile.whole()) {
      scale_to(o, row.normaliser(), partials.out_row(tile.slot, i), DType::f32, kLatentDim);
      partials.lse_row(tile.slot, i) = row.lse();
    } else if (row.sum == 0.0f) {
      write_empty_row(problem, work, tile.request, at);  // values that no row sees may have been NaN
    } else {
      write_row(problem, work, tile.request, at, o, row.normaliser(), row.lse());
    }
  }
}

void write_empty_tile(const DecodeProblem& problem, const Work& work, const Tile& tile, const Partials& partials) {
  for (std::int32_t i = 0; i < tile.num_rows; ++i) {
    if (tile.whole()) {
      write_empty_row(problem, work, tile.request, unpack_row(tile.first_row + i, tile.kv_head, work.heads_per_kv));
    } else {
      partials.lse_row(tile.slot, i) = kNegativeInfinity;
    }
  }
}

void write_padding_tokens(const DecodeProblem& problem) {
  if (!problem.batch.cu_seqlens_q) return;
  const Work work{.cu_seqlens_q = nullptr};  // tokens are counted over the whole step
  for (std::int64_t token = problem.batch.cu_seqlens_q[problem.batch.batch]; token < problem.batch.total_q; ++token) {
    for (std::int32_t head = 0; head < problem.num_heads_q; ++head) {
      write_empty_row(problem, work, 0, {static_cast<std::int32_t>(token), head});
    }
  }
}

void merge_splits(const DecodeProblem& problem, const Work& work, const Tile& tile, std::int32_t first,
                  std::int32_t last, const Partials& partials) {
  alignas(64) float sum[kLatentDim];
  for (std::int32_t i = first; i < last; ++i) {
    const auto lse_of = [&](int split) { return partials.lse_row(tile.first_slot + split, i); };
    const MergedLse merged = merge_lse(tile.num_splits(), lse_of);
    std::memset(sum, 0, sizeof sum);
    for (int split = 0; split < tile.num_splits(); ++split) {
      const float factor = merged.factor(lse_of(split));
      if (factor == 0.0f) continue;  // an empty partial's out was not written
      add_scaled(partials.out_row(tile.first_slot + split, i), DType::f32, factor, sum, kLatentDim);
    }
    write_row(problem, work, tile.request, unpack_row(tile.first_row + i, tile.kv_head, work.heads_per_kv), sum, 1.0f,
              merged.lse());
  }
}

}  // namespace flash_mla::cpu
