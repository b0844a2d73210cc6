// Dense decode on Hopper: one thread block per (part, 64 rows of a unit), four warpgroups with one role each.
//
//   for each tile of the part:                        docs/algorithm.md
//     loaders  Q and K blocks to shared memory
//     scores   S = Q K^T, P = exp2(S - reference), row sums, lse
//     left     O[:, 0:256]   = P V[:, 0:256]   / sum
//     right    O[:, 256:512] = P V[:, 256:512] / sum
//
// The loaders' warpgroup also has the dealer, which walks over the tiles.
#pragma once

#include "cuda/combine/merge_two_splits.h"
#include "cuda/ptx/dependent_launch.h"
#include "cuda/ptx/fence.h"
#include "cuda/ptx/warpgroup.h"
#include "cuda/sm90/common/padding.h"
#include "cuda/sm90/common/params.h"
#include "cuda/sm90/dense_decode/load.h"
#include "cuda/sm90/dense_decode/scores_role.h"
#include "cuda/sm90/dense_decode/smem.h"
#include "cuda/sm90/dense_decode/values_role.h"

namespace flash_mla::sm90 {

// By the lanes of the dealer's warp.
inline __device__ void set_up(SharedMemory& smem) {
  init_barriers(smem, threadIdx.x % 32);
  ptx::fence_barrier_init();
  __syncwarp();
  ptx::sync_threads(kSetUpBarrier, kThreads);
}

// By every other warp, before it uses a barrier or global memory.
inline __device__ void meet_and_wait() {
  ptx::sync_threads(kSetUpBarrier, kThreads);
  ptx::wait_for_prerequisites();
}

// Step 8, by the values roles. What they bring, and sums of warps that share an item, have the place of blocks of
// tokens: all have been used.
template <class Element>
__device__ __forceinline__ void merge_cut_units(SharedMemory& smem, const DecodeParams& params) {
  constexpr auto kOrder = tile::ColumnOrder::pairs;
  static_assert(kMergingWarps * cuda::kTwoSplitsRows * 2 == kRows);
  static_assert(kMergingWarps * cuda::kWarpStagingBytes <= sizeof smem.kv.k);
  using Mergers = cuda::Mergers<kMergingWarps>;
  const Mergers mergers{reinterpret_cast<Mergers::Sums&>(smem.kv.k[0]), kWarpgroupWarps, kMergeBarrier};
  Gates::wait_for_gates();
  const int warp = mergers.warp();
  const auto has_two_splits = [&](int i) { return cuda::has_two_splits(smem.cut.unit[i], smem.cut.shares[i]); };
  if (has_two_splits(0) || has_two_splits(1)) {
    cuda::merge_two_splits<Element, kOrder>(params, smem.cut.unit, smem.cut.shares, warp,
                                            smem.kv.k[0][0].bytes + warp * cuda::kWarpStagingBytes,
                                            smem.partials_landed[warp]);
  }
#pragma unroll 1
  for (int i = 0; i < 2; ++i) {
    if (has_two_splits(i)) continue;
    cuda::merge_shares<Element, kOrder, 10>(mergers, params, smem.cut.unit[i], smem.cut.shares[i]);
  }
}

// The dealer does not wait for the kernel before this one: the schedule and the lengths that it was made from were
// there before this kernel could begin, for the schedule kernel lets no other begin early and fences what it wrote.
// Nothing else may be read, and nothing written, before the kernel before has finished.
template <class Element>
__global__ void __launch_bounds__(kThreads, 1)
    flash_fwd_splitkv_mla_kernel(const __grid_constant__ TensorMaps maps, const __grid_constant__ DecodeParams params) {
  extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];
  SharedMemory& smem = *reinterpret_cast<SharedMemory*>(dynamic_shared_memory);
  const int warpgroup = threadIdx.x / kWarpgroupThreads;
  ptx::launch_dependents();  // which in turn wait for this kernel before they read or write what it does

  // One if / else over whole warpgroups: the compiler plans registers by it.
  if (warpgroup == 3) {
    ptx::lower_registers<kLoadRegisters>();
    const int warp = threadIdx.x / 32;
    if (warp == kDealerWarp) {
      set_up(smem);
      if (threadIdx.x % 32 == 0) deal_tiles(smem.ring, params, kRows);
      return;
    }
    if (warp == kLoaderWarp) prefetch_maps(maps);
    meet_and_wait();
    if (warp == kLoaderWarp) {
      run_loader(smem, maps, params);
    } else if (warp == kQueryLoaderWarp) {
      run_query_loader(smem.ring, smem.q[0].bytes, kSliceBytes, smem.q_landed, smem.q_released, maps, params);
    } else {
      run_gatekeeper<Gates>(smem.cut, params, kRows);
    }
  } else if (warpgroup == 0) {
    ptx::lower_registers<kScoresRegisters>();
    meet_and_wait();
    run_scores<Element>(smem, params);
    Gates::announce_partials();
  } else {
    ptx::raise_registers<kValuesRegisters>();
    meet_and_wait();
    if (warpgroup == 1) {
      run_values<Element, Side::left>(smem, params);
    } else {
      run_values<Element, Side::right>(smem, params);
    }
    Gates::announce_partials();
    if (warpgroup == 1) write_padding<Element>(params);
    merge_cut_units<Element>(smem, params);
  }
}

}  // namespace flash_mla::sm90
