// Step 4 of docs/algorithm.md [scores]: S = Q K^T of 64 rows and one block of 64 tokens, in the accumulators of one
// warpgroup.
//
//   waits for k_landed, strip by strip
#pragma once

#include "cuda/ptx/matrix.h"
#include "cuda/ptx/wgmma.h"
#include "cuda/sm90/dense_decode/smem.h"
#include "cuda/tile/accumulator.h"
#include "cuda/tile/descriptor.h"

namespace flash_mla::sm90 {

inline constexpr int kSliceSteps = tile::kSliceColumns / tile::kStepK;  // wgmmas a slice
inline constexpr int kScoreRegisters = kBlockTokens / 2;                // a thread

// The first slices of Q as register operands.
struct QueryFragments {
  std::uint32_t a[kQuerySlicesInRegisters][kSliceSteps][4];
};

__device__ __forceinline__ void load_query_fragments(const Slice* slices, QueryFragments& q) {
  const int warp = threadIdx.x / 32 % kWarpgroupWarps, lane = threadIdx.x % 32;
#pragma unroll
  for (int slice = 0; slice < kQuerySlicesInRegisters; ++slice) {
#pragma unroll
    for (int step = 0; step < kSliceSteps; ++step) {
      ptx::load_matrix_x4(slices[slice].bytes + tile::fragment_bytes(warp, lane, step), q.a[slice][step]);
    }
  }
}

// Issues all products of a block, the thread block's `block`-th, whose strips are those from `strips` on; the caller
// waits for them.
template <class Element>
__device__ __forceinline__ void issue_scores(SharedMemory& smem, const QueryFragments& q, const RingPosition& strips,
                                             std::uint32_t block, float (&s)[kScoreRegisters]) {
  using Mma = ptx::Wgmma<Element, kBlockTokens, ptx::Major::k>;
  const std::uint64_t q_descriptor = tile::k_major(ptx::shared_address(smem.q));
#pragma unroll
  for (int position = 0; position < kStrips; ++position) {
    const int strip = StripOrder::at(position);
    const bool rope = strip == kRopeStrip;
    const std::uint32_t place = rope ? KvRing::rope_place(block) : strips.place(strip);
    const std::uint64_t k_descriptor = tile::k_major(
        ptx::shared_address(rope ? &smem.kv.ropes[block % kRopePlaces] : smem.kv.strips[strips.place(strip)]));
    smem.kv.k_landed[place].wait(rope ? KvRing::rope_parity(block) : strips.parity(strip));
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = 0; i < slices_of(strip) * kSliceSteps; ++i) {
      const int slice = first_slice_of(strip) + i / kSliceSteps, step = i % kSliceSteps;
      const bool accumulate = position + i > 0;
      const std::uint64_t k =
          tile::advance(k_descriptor, i / kSliceSteps * kSliceBytes + tile::k_major_step_bytes(step));
      if (slice < kQuerySlicesInRegisters) {
        Mma::mma(s, q.a[slice < kQuerySlicesInRegisters ? slice : 0][step], k, accumulate);
      } else {
        const int offset = (slice - kQuerySlicesInRegisters) * kSliceBytes + tile::k_major_step_bytes(step);
        Mma::mma(s, tile::advance(q_descriptor, offset), k, accumulate);
      }
    }
  }
  ptx::warpgroup_commit();
}

}  // namespace flash_mla::sm90
