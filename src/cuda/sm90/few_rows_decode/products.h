// Steps 4 and 6 of docs/algorithm.md [group]: the two products of a block, transposed: S^T = K Q^T, O^T += V^T P^T.
//
//   waits for k_landed, slice by slice; announces k_released
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

// S^T of one block, complete on return; the rope slice is released.
template <class Element, int Groups>
__device__ __forceinline__ void multiply_scores(SharedMemory<Groups>& smem, const GroupMemory& group, int stage,
                                                std::uint32_t parity, float (&s)[kScoreRegisters]) {
  using Mma = ptx::Wgmma<Element, kGroupRows, ptx::Major::k>;
  const std::uint64_t k = tile::k_major(ptx::shared_address(smem.kv.k[stage]));
  const std::uint64_t q = tile::k_major(ptx::shared_address(group.q));
#pragma unroll
  for (int position = 0; position < kSlices; ++position) {
    const int slice = SliceOrder::at(position);
    smem.kv.k_landed[stage][slice].wait(parity);
    ptx::warpgroup_fence();
#pragma unroll
    for (int step = 0; step < kSliceSteps; ++step) {
      const int offset = tile::k_major_step_bytes(step);
      Mma::mma(s, tile::advance(k, slice * kSliceBytes + offset), tile::advance(q, slice * kGroupSliceBytes + offset),
               position + step > 0);
    }
  }
  ptx::warpgroup_commit();
  ptx::warpgroup_wait<0>();
  if (threadIdx.x % 32 == 0) smem.kv.k_released[stage][kLatentSlices].arrive();
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

// O^T += V^T P^T; slices are released two by two.
template <class Element, int Groups>
__device__ __forceinline__ void multiply_values(SharedMemory<Groups>& smem, const GroupMemory& group, int stage,
                                                Accumulators& acc) {
  using Mma = ptx::Wgmma<Element, kGroupRows, ptx::Major::k, ptx::Major::mn>;
  constexpr int kPairs = kLatentSlices / 2;
  const std::uint64_t v = tile::mn_major(ptx::shared_address(smem.kv.k[stage]), kSliceBytes);
  const std::uint64_t p = tile::k_major(ptx::shared_address(group.p));
  ptx::warpgroup_fence();
#pragma unroll
  for (int slice = 0; slice < kLatentSlices; ++slice) {
#pragma unroll
    for (int step = 0; step < kBlockSteps; ++step) {
      Mma::mma(acc.o[slice], tile::advance(v, slice * kSliceBytes + tile::mn_major_step_bytes(step)),
               tile::advance(p, tile::k_major_step_bytes(step)), true);
    }
    if (slice % 2 == 1) ptx::warpgroup_commit();
  }
  const int lane = threadIdx.x % 32;
  const auto release = [&](int pair) {
    if (lane < 2) smem.kv.k_released[stage][2 * pair + lane].arrive();
  };
  ptx::warpgroup_wait<kPairs - 1>();
  release(0);
  ptx::warpgroup_wait<kPairs - 2>();
  release(1);
  ptx::warpgroup_wait<kPairs - 3>();
  release(2);
  ptx::warpgroup_wait<0>();
  release(3);
}

}  // namespace flash_mla::sm90::few_rows
