// Steps 4 and 6 of docs/algorithm.md [group]: the two products of a block, transposed: S^T = K Q^T, O^T += V^T P^T.
//
//   waits for k_landed, slice by slice; announces k_released of the latent slices
#pragma once

#include "cuda/ptx/wgmma.h"
#include "cuda/sm90/few_rows_decode/softmax.h"
#include "cuda/tile/descriptor.h"

namespace flash_mla::sm90::few_rows {

inline constexpr int kSliceSteps = tile::kSliceColumns / tile::kStepK;
inline constexpr int kBlockSteps = kBlockTokens / tile::kStepK;
inline constexpr int kOutputRegisters = kGroupRows / 2;  // of one slice

// O^T of a thread: per slice of values, columns 16 w + l / 4 and + 8 of its four rows.
struct Accumulators {
  float o[kLatentSlices][kOutputRegisters];
};

__device__ __forceinline__ void clear(RowState& rows, Accumulators& acc) {
#pragma unroll
  for (int c = 0; c < kThreadColumns; ++c) rows.maximum[c] = kNegativeInfinity, rows.sum[c] = 0.f;
#pragma unroll
  for (auto& slice : acc.o) {
#pragma unroll
    for (float& x : slice) x = 0.f;
  }
}

// S^T of one block, complete on return.
template <class Element, int Groups>
__device__ __forceinline__ void multiply_scores(SharedMemory<Groups>& smem, int first_row, int stage,
                                                std::uint32_t parity, float (&s)[kScoreRegisters]) {
  using Mma = ptx::Wgmma<Element, kGroupRows, ptx::Major::k>;
  const std::uint64_t k = tile::k_major(ptx::shared_address(smem.kv.k[stage]));
  const std::uint64_t q = tile::k_major(ptx::shared_address(smem.q[0]) + first_row * tile::kRowBytes);
  float odd[kScoreRegisters];  // a second sum: products so small would wait for one another
#pragma unroll
  for (int position = 0; position < kSlices; ++position) {
    const int slice = SliceOrder::at(position);
    smem.kv.k_landed[stage][slice].wait(parity);
    ptx::warpgroup_fence();
#pragma unroll
    for (int step = 0; step < kSliceSteps; ++step) {
      const int offset = tile::k_major_step_bytes(step);
      Mma::mma(step % 2 == 0 ? s : odd, tile::advance(k, slice * kSliceBytes + offset),
               tile::advance(q, slice * Groups * kGroupSliceBytes + offset), position > 0 || step > 1);
    }
  }
  ptx::warpgroup_commit();
  ptx::warpgroup_wait<0>();
#pragma unroll
  for (int i = 0; i < kScoreRegisters; ++i) s[i] += odd[i];
}

__device__ __forceinline__ void rescale(Accumulators& acc, const float (&factor)[kThreadColumns]) {
  bool needed = false;
#pragma unroll
  for (const float f : factor) needed |= f != 1.f;
  if (!__any_sync(kAllLanes, needed)) return;
#pragma unroll
  for (auto& slice : acc.o) {
#pragma unroll
    for (int i = 0; i < kOutputRegisters; ++i) slice[i] *= factor[column_of(i)];
  }
}

// Issues O^T += V^T P^T of a block; two slices a group of products.
template <class Element, int Groups>
__device__ __forceinline__ void issue_values(SharedMemory<Groups>& smem, const GroupMemory& group, int stage,
                                             Accumulators& acc) {
  using Mma = ptx::Wgmma<Element, kGroupRows, ptx::Major::k, ptx::Major::mn>;
  const std::uint64_t v = tile::mn_major(ptx::shared_address(smem.kv.k[stage]), kSliceBytes);
  const std::uint64_t p = tile::k_major(ptx::shared_address(group.p));
  ptx::warpgroup_fence();
#pragma unroll
  for (int pair = 0; pair < kLatentSlices / 2; ++pair) {
#pragma unroll
    for (int step = 0; step < kBlockSteps; ++step) {
#pragma unroll
      for (int slice = 2 * pair; slice < 2 * pair + 2; ++slice) {  // in turn: neither sum waits for itself
        Mma::mma(acc.o[slice], tile::advance(v, slice * kSliceBytes + tile::mn_major_step_bytes(step)),
                 tile::advance(p, tile::k_major_step_bytes(step)), true);
      }
    }
    ptx::warpgroup_commit();
  }
}

// Waits for them, and releases the slices two by two.
template <int Groups>
__device__ __forceinline__ void finish_values(SharedMemory<Groups>& smem, int stage) {
  static_assert(kLatentSlices == 8);
  const int lane = threadIdx.x % 32;
  const auto release = [&](int pair) {
    if (lane < 2) smem.kv.k_released[stage][2 * pair + lane].arrive();
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
