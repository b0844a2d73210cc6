// Packed rows of a tile: where a row lies in a tensor of rows, and what it sees.
#pragma once

#include "core/mask.h"
#include "core/online_softmax.h"
#include "core/row_packing.h"
#include "cuda/sm90/common/params.h"
#include "cuda/sm90/common/tile_ring.h"

namespace flash_mla::sm90 {

// The element offset of a packed row in a tensor of rows.
inline __device__ std::int64_t row_offset(const RowsView& view, const Work& work, const TileRecord& tile, int row) {
  const QueryHead at = unpack_row(tile.first_row + row, tile.kv_head, work.heads_per_kv);
  return tile.request * view.batch_stride + (tile.first_query + at.query) * view.token_stride +
         at.head * view.head_stride;
}

// The row of all partials that a row of the tile is.
__device__ __forceinline__ std::int64_t partial_row(const DecodeParams& params, const TileRecord& tile, int row) {
  return static_cast<std::int64_t>(tile.slot) * params.work.rows_per_unit + tile.row_in_unit + row;
}

// 0 for a row that saw no token.
__device__ __forceinline__ float inverse(float sum) { return sum == 0.f ? 0.f : 1.f / sum; }

// The largest finite |x| of the pairs that for_each(raise) hands to raise(a, b); Inf and NaN have no part in a scale.
template <class ForEach>
__device__ __forceinline__ float largest_finite(ForEach for_each) {
  float largest = 0.f;
  for_each([&](float a, float b) { largest = fmaxf(largest, fmaxf(fabsf(a), fabsf(b))); });
  if (largest != kPositiveInfinity) return largest;
  largest = 0.f;
  const auto finite = [](float x) { return fabsf(x) == kPositiveInfinity ? 0.f : fabsf(x); };
  for_each([&](float a, float b) { largest = fmaxf(largest, fmaxf(finite(a), finite(b))); });
  return largest;
}

__device__ __forceinline__ int visible_to_row(const Work& work, const TileRecord& tile, int row) {
  const int query = unpack_row(tile.first_row + row, tile.kv_head, work.heads_per_kv).query;
  return visible_tokens(tile.length, tile.queries, query, work.causal);
}

}  // namespace flash_mla::sm90
