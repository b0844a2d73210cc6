// Step 7 of docs/algorithm.md [group]: O / sum and lse to memory, as result rows or as an unmerged partial.
//
// Eight threads of a warp hold eight neighbouring columns of a row.
#pragma once

#include "core/partial.h"
#include "cuda/sm90/common/rows.h"
#include "cuda/sm90/few_rows_decode/products.h"

namespace flash_mla::sm90::few_rows {

// The thread's column c of O^T: 16 of a row's 512 elements.
template <class To>
__device__ __forceinline__ void store_column(To* row, const Accumulators& acc, int c, float factor) {
  const int warp = threadIdx.x / 32 % kWarpgroupWarps, lane = threadIdx.x % 32;
  To* to = row + 16 * warp + lane / 4;
#pragma unroll
  for (int slice = 0; slice < kLatentSlices; ++slice) {
    const int i = 4 * (c / 2) + c % 2;
    to[slice * tile::kSliceColumns] = static_cast<To>(acc.o[slice][i] * factor);
    to[slice * tile::kSliceColumns + 8] = static_cast<To>(acc.o[slice][i + 2] * factor);
  }
}

// `sum` is of all tokens. `first_row` is the group's in the tile.
template <class Element>
__device__ __forceinline__ void write_rows(const DecodeParams& params, const TileRecord& tile, int first_row,
                                           const Accumulators& acc, const RowState& rows,
                                           const float (&sum)[kThreadColumns]) {
  const int warp = threadIdx.x / 32 % kWarpgroupWarps, lane = threadIdx.x % 32;
  const bool writes_lse = warp == 0 && lane < 4;
#pragma unroll
  for (int c = 0; c < kThreadColumns; ++c) {
    const int row = first_row + row_of_column(lane, c);
    if (row >= tile.num_rows) continue;
    const float factor = sum[c] == 0.f ? 0.f : 1.f / sum[c];  // 0: the row saw no token
    const float lse = sum[c] == 0.f ? kNegativeInfinity : (rows.maximum[c] + log2f(sum[c])) * kLn2;
    if (tile.slot >= 0) {
      const std::int64_t partial_row =
          static_cast<std::int64_t>(tile.slot) * params.work.rows_per_unit + tile.row_in_unit + row;
      store_column(params.partial_out + partial_row * kLatentDim, acc, c, factor);
      if (writes_lse) params.partial_lse[partial_row] = lse;
    } else {
      store_column(static_cast<Element*>(params.out.data) + row_offset(params.out, params.work, tile, row), acc, c,
                   factor);
      if (writes_lse && params.lse.data != nullptr) {
        static_cast<float*>(params.lse.data)[row_offset(params.lse, params.work, tile, row)] = lse_for_api(lse);
      }
    }
  }
}

}  // namespace flash_mla::sm90::few_rows
