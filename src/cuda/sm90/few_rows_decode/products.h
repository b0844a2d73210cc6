// Steps 4 and 6 of docs/algorithm.md [group]: the two products of a block, transposed: S^T = K Q^T, O^T += V^T P^T.
//
//   waits for k_landed, strip by strip; announces k_released of the latent strips
#pragma once

#include "cuda/ptx/wgmma.h"
#include "cuda/sm90/few_rows_decode/softmax.h"
#include "cuda/tile/descriptor.h"

namespace flash_mla::sm90::few_rows {

inline constexpr int kSliceSteps = tile::kSliceColumns / tile::kStepK;
inline constexpr int kBlockSteps = kBlockTokens / tile::kStepK;

// O^T of a thread: per slice of values, columns 16 w + l / 4 and + 8 of its rows.
template <int Rows>
struct Accumulators {
  float o[kLatentSlices][kTileRegisters<Rows>];
};

template <int Rows>
__device__ __forceinline__ void clear(RowState<Rows>& rows, Accumulators<Rows>& acc) {
#pragma unroll
  for (int c = 0; c < kThreadColumns<Rows>; ++c) rows.maximum[c] = kNegativeInfinity, rows.sum[c] = 0.f;
#pragma unroll
  for (auto& slice : acc.o) {
#pragma unroll
    for (float& x : slice) x = 0.f;
  }
}

// S^T of one block, complete on return.
template <class Element, int Rows>
__device__ __forceinline__ void multiply_scores(SharedMemory<Rows>& smem, int stage, std::uint32_t parity,
                                                float (&s)[kTileRegisters<Rows>]) {
  using Mma = ptx::Wgmma<Element, Rows, ptx::Major::k>;
  const std::uint64_t k = tile::k_major(ptx::shared_address(smem.kv.k[stage]));
  const std::uint64_t q = tile::k_major(ptx::shared_address(smem.q[0]));
  constexpr int kSums = 64 / Rows;  // products so small would wait for one another
  float sums[kSums][kTileRegisters<Rows>];
#pragma unroll
  for (int position = 0; position < kStrips; ++position) {
    const int strip = StripOrder::at(position);
    smem.kv.k_landed[stage][strip].wait(parity);
    ptx::warpgroup_fence();
#pragma unroll
    for (int step = 0; step < slices_of(strip) * kSliceSteps; ++step) {
      const int slice = first_slice_of(strip) + step / kSliceSteps;
      const int offset = tile::k_major_step_bytes(step % kSliceSteps);
      Mma::mma(sums[step % kSums], tile::advance(k, slice * kSliceBytes + offset),
               tile::advance(q, slice * kQuerySliceBytes<Rows> + offset), position > 0 || step >= kSums);
    }
  }
  ptx::warpgroup_commit();
  ptx::warpgroup_wait<0>();
#pragma unroll
  for (int i = 0; i < kTileRegisters<Rows>; ++i) {
    s[i] = sums[0][i];
#pragma unroll
    for (int sum = 1; sum < kSums; ++sum) s[i] += sums[sum][i];
  }
}

template <int Rows>
__device__ __forceinline__ void rescale(Accumulators<Rows>& acc, const float (&factor)[kThreadColumns<Rows>]) {
  bool needed = false;
#pragma unroll
  for (const float f : factor) needed |= f != 1.f;
  if (!__any_sync(kAllLanes, needed)) return;
#pragma unroll
  for (auto& slice : acc.o) {
#pragma unroll
    for (int i = 0; i < kTileRegisters<Rows>; ++i) slice[i] *= factor[column_of(i)];
  }
}

// Issues O^T += V^T P^T of a block; a strip a group of products.
template <class Element, int Rows>
__device__ __forceinline__ void issue_values(SharedMemory<Rows>& smem, int stage, Accumulators<Rows>& acc) {
  using Mma = ptx::Wgmma<Element, Rows, ptx::Major::k, ptx::Major::mn>;
  const std::uint64_t v = tile::mn_major(ptx::shared_address(smem.kv.k[stage]), kSliceBytes);
  const std::uint64_t p = tile::k_major(ptx::shared_address(smem.p));
  ptx::warpgroup_fence();
#pragma unroll
  for (int strip = 0; strip < kRopeStrip; ++strip) {
#pragma unroll
    for (int step = 0; step < kBlockSteps; ++step) {
#pragma unroll
      for (int slice = first_slice_of(strip); slice < first_slice_of(strip + 1);
           ++slice) {  // in turn: neither sum waits for itself
        Mma::mma(acc.o[slice], tile::advance(v, slice * kSliceBytes + tile::mn_major_step_bytes(step)),
                 tile::advance(p, tile::k_major_step_bytes(step)), true);
      }
    }
    ptx::warpgroup_commit();
  }
}

// Waits for them, and releases strip by strip.
template <int Rows>
__device__ __forceinline__ void finish_values(SharedMemory<Rows>& smem, int stage) {
  static_assert(kRopeStrip == 4);
  const auto release = [&](int strip) {
    if (threadIdx.x % 32 == 0) smem.kv.k_released[stage][strip].arrive();
  };
  ptx::warpgroup_wait<3>();
  release(0);
  ptx::warpgroup_wait<2>();
  release(1);
  ptx::warpgroup_wait<1>();
  release(2);
  ptx::warpgroup_wait<0>();
  release(3);
}

}  // namespace flash_mla::sm90::few_rows
