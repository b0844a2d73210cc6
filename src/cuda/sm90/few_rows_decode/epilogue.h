// Step 7 of docs/algorithm.md [group]: the result rows, or an unmerged partial, to memory. Code that runs once arrives
// from memory as slowly as data, so both ways are short.
//
// A partial is stored in f16 with scales (combine/partials.h), its columns in the order in which threads hold them
// (tile/column_order.h), 16 bytes at a time: then a warp has 128 neighbouring positions of a row. Result rows pass
// through shared memory.
#pragma once

#include "core/partial.h"
#include "cuda/combine/partials.h"
#include "cuda/ptx/bulk_copy.h"
#include "cuda/sm90/common/rows.h"
#include "cuda/sm90/few_rows_decode/products.h"
#include "cuda/tile/column_order.h"

namespace flash_mla::sm90::few_rows {

// What belongs to a row beside its elements. All warps have all rows' sums (`sum`, of all tokens): each writes those of
// some columns, a row a lane.
template <int Rows>
__device__ __forceinline__ void write_row_sums(const DecodeParams& params, const TileRecord& tile,
                                               const RowState<Rows>& rows, const float (&sum)[kThreadColumns<Rows>]) {
  constexpr int kRowLanes = 4;  // beside one another, have all rows of a column
  constexpr int kWarpColumns = kThreadColumns<Rows> / kWarpgroupWarps;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (lane >= kRowLanes * kWarpColumns) return;
  const int column = kWarpColumns * warp + lane / kRowLanes, row = row_of_column(lane, column);
  float maximum = 0.f, total = 0.f;
#pragma unroll
  for (int c = 0; c < kThreadColumns<Rows>; ++c) {
    if (c == column) maximum = rows.maximum[c], total = sum[c];
  }
  if (row >= tile.num_rows) return;
  const float lse = total == 0.f ? kNegativeInfinity : (maximum + log2f(total)) * kLn2;
  if (tile.slot >= 0) {
    params.partials.rows[partial_row(params, tile, row)].lse = lse;
  } else if (params.lse.data != nullptr) {
    static_cast<float*>(params.lse.data)[row_offset(params.lse, params.work, tile, row)] = lse_for_api(lse);
  }
}

// The largest finite |o| of each of the thread's rows among the columns that the warp has.
template <int Rows>
__device__ __forceinline__ void find_largest(const Accumulators<Rows>& acc, float (&largest)[kThreadColumns<Rows>]) {
  find_largest_finite(largest, [&](auto raise) {
#pragma unroll
    for (const auto& slice : acc.o) {
#pragma unroll
      for (int i = 0; i < kTileRegisters<Rows>; ++i) raise(column_of(i), slice[i]);
    }
  });
#pragma unroll
  for (int distance = 4; distance < 32; distance *= 2) {
#pragma unroll
    for (float& x : largest) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, distance));
  }
}

template <int Rows>
__device__ __forceinline__ void write_partial(const DecodeParams& params, const TileRecord& tile,
                                              const Accumulators<Rows>& acc, const float (&sum)[kThreadColumns<Rows>]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float largest[kThreadColumns<Rows>];
  find_largest(acc, largest);
#pragma unroll
  for (int c = 0; c < kThreadColumns<Rows>; ++c) {
    const cuda::PowerOfTwo power = cuda::scale_to_f16(largest[c]);
    uint4 values[2];  // columns 16 w + l / 4 and + 8 of each slice
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = 4 * (c / 2) + c % 2 + 2 * half;
      std::uint32_t pairs[kLatentSlices / 2];
#pragma unroll
      for (int slice = 0; slice < kLatentSlices; slice += 2) {
        pairs[slice / 2] = pack<__half>(acc.o[slice][i] * power.factor, acc.o[slice + 1][i] * power.factor);
      }
      values[half] = {pairs[0], pairs[1], pairs[2], pairs[3]};
    }
    const float scale = power.inverse * inverse(sum[c]);
    const int row = row_of_column(lane, c);
    if (row >= tile.num_rows) continue;
    const std::int64_t at = partial_row(params, tile, row);
    if (lane < 4) params.partials.rows[at].scale[warp] = scale;
    std::uint16_t* const to = params.partials.values_of(at) + tile::transposed_position(0, 16 * warp + lane / 4);
    *reinterpret_cast<uint4*>(to) = values[0];
    *reinterpret_cast<uint4*>(to + tile::transposed_position(0, 8)) = values[1];
  }
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
