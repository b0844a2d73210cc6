// Step 7 of docs/algorithm.md [group]: the result rows to memory, through shared memory. (Unmerged partials:
// large_step.h, small_step.h.)
#pragma once

#include "core/partial.h"
#include "cuda/combine/partials.h"
#include "cuda/ptx/bulk_copy.h"
#include "cuda/sm90/common/rows.h"
#include "cuda/sm90/few_rows_decode/products.h"

namespace flash_mla::sm90::few_rows {

__device__ __forceinline__ float lse_of(float maximum, float sum) {
  return sum == 0.f ? kNegativeInfinity : (maximum + log2f(sum)) * kLn2;
}

// All warps have all rows' sums (`sum`, of all tokens): each has those of some columns, a row a lane.
template <int Rows, class Visit>
__device__ __forceinline__ void for_own_row(const RowState<Rows>& rows, const float (&sum)[kThreadColumns<Rows>],
                                            Visit visit) {
  constexpr int kRowLanes = 4;  // beside one another, have all rows of a column
  constexpr int kWarpColumns = kThreadColumns<Rows> / kWarpgroupWarps;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (lane >= kRowLanes * kWarpColumns) return;
  const int column = kWarpColumns * warp + lane / kRowLanes;
  float maximum = 0.f, total = 0.f;
#pragma unroll
  for (int c = 0; c < kThreadColumns<Rows>; ++c) {
    if (c == column) maximum = rows.maximum[c], total = sum[c];
  }
  visit(row_of_column(lane, column), maximum, total);
}

template <int Rows>
__device__ __forceinline__ void write_lse(const DecodeParams& params, const TileRecord& tile,
                                          const RowState<Rows>& rows, const float (&sum)[kThreadColumns<Rows>]) {
  if (params.lse.data == nullptr) return;
  for_own_row(rows, sum, [&](int row, float maximum, float total) {
    if (row >= tile.num_rows) return;
    static_cast<float*>(params.lse.data)[row_offset(params.lse, params.work, tile, row)] =
        lse_for_api(lse_of(maximum, total));
  });
}

// The copy engine takes the rows from shared memory, while the group goes on.
template <class Element, int Rows>
__device__ __forceinline__ void write_results(SharedMemory<Rows>& smem, const DecodeParams& params,
                                              const TileRecord& tile, const Accumulators<Rows>& acc,
                                              const float (&sum)[kThreadColumns<Rows>]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float factor[kThreadColumns<Rows>];
#pragma unroll
  for (int c = 0; c < kThreadColumns<Rows>; ++c) factor[c] = inverse(sum[c]);
  if (warp == 0) ptx::wait_for_bulk_reads();  // of the last results
  ptx::sync_threads(kGroupBarrier, kWarpgroupThreads);
  unsigned char* const to =
      smem.results + (lane / 16 * 8 + lane % 8) * kResultPitchBytes + (2 * warp + lane / 8 % 2) * tile::kChunkBytes;
#pragma unroll
  for (int first_row = 0; first_row < Rows; first_row += 16) {
#pragma unroll
    for (int slice = 0; slice < kLatentSlices; ++slice) {
      std::uint32_t pairs[4];
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        const int i = first_row / 2 + 2 * pair, c = column_of(i);
        pairs[pair] = pack<Element>(acc.o[slice][i] * factor[c], acc.o[slice][i + 1] * factor[c + 1]);
      }
      ptx::store_matrix_x4_transposed(to + first_row * kResultPitchBytes + slice * tile::kRowBytes, pairs);
    }
  }
  ptx::fence_async_shared();
  ptx::sync_threads(kGroupBarrier, kWarpgroupThreads);
  if (warp != 0 || lane >= Rows || lane >= tile.num_rows) return;
  ptx::bulk_store(static_cast<Element*>(params.out.data) + row_offset(params.out, params.work, tile, lane),
                  smem.results + lane * kResultPitchBytes, kResultRowBytes);
}

}  // namespace flash_mla::sm90::few_rows
