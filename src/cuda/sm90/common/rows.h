// Packed rows of a tile: where a row lies in a tensor of rows, and what it sees.
#pragma once

#include "core/mask.h"
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

__device__ __forceinline__ int visible_to_row(const Work& work, const TileRecord& tile, int row) {
  const int query = unpack_row(tile.first_row + row, tile.kv_head, work.heads_per_kv).query;
  return visible_tokens(tile.length, tile.queries, query, work.causal);
}

}  // namespace flash_mla::sm90
