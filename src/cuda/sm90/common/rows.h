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

// The largest finite |x| of each of several sets: for_each(raise) hands the elements x of set s to raise(s, x), those
// of all sets in turn, so that none waits for its own maximum. Inf and NaN have no part in a scale.
template <int Sets, class ForEach>
__device__ __forceinline__ void find_largest_finite(float (&largest)[Sets], ForEach for_each) {
#pragma unroll
  for (float& x : largest) x = 0.f;
  for_each([&](int set, float x) { largest[set] = fmaxf(largest[set], fabsf(x)); });
  bool finite = true;
#pragma unroll
  for (const float x : largest) finite = finite && x != kPositiveInfinity;
  if (finite) return;
#pragma unroll
  for (float& x : largest) x = 0.f;
  for_each([&](int set, float x) {
    if (fabsf(x) != kPositiveInfinity) largest[set] = fmaxf(largest[set], fabsf(x));
  });
}

// Whether token `at` of a block is one of the `visible` that a row sees from the block's first one on.
__device__ __forceinline__ bool sees(int at, int visible) {
  return static_cast<std::uint32_t>(at) < static_cast<std::uint32_t>(max_of(visible, 0));
}

__device__ __forceinline__ int visible_to_row(const Work& work, const TileRecord& tile, int row) {
  const int query = unpack_row(tile.first_row + row, tile.kv_head, work.heads_per_kv).query;
  return visible_tokens(tile.length, tile.queries, query, work.causal);
}

}  // namespace flash_mla::sm90
