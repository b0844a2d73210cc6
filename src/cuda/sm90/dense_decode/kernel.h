// Dense decode on Hopper: one thread block per (part, 64 rows of a unit), four warpgroups with one role each.
//
//   for each tile of the part:                        docs/algorithm.md
//     loaders  Q and K blocks to shared memory
//     scores   S = Q K^T, P = exp2(S - reference), row sums, lse
//     left     O[:, 0:256]   = P V[:, 0:256]   / sum
//     right    O[:, 256:512] = P V[:, 256:512] / sum
//   merge of the units that the part has cut, by left and right
//
// The loaders' warpgroup also has the dealer, which walks over the tiles, and the gatekeeper, who knows when cut units
// are complete.
#pragma once

#include "cuda/combine/merge_cut_units.h"
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

// Tiles and cut units are found before the kernel before this one has finished: the schedule and the lengths that it
// was made from were there before this kernel could begin, for the schedule kernel lets no other begin early and fences
// what it wrote. Nothing else may be read, and nothing written, before the kernel before has finished.
template <class Element>
__global__ void __launch_bounds__(kThreads, 1)
    flash_fwd_splitkv_mla_kernel(const __grid_constant__ TensorMaps maps, const __grid_constant__ DecodeParams params) {
  extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];
  SharedMemory& smem = *reinterpret_cast<SharedMemory*>(dynamic_shared_memory);
  const int warpgroup = threadIdx.x / kWarpgroupThreads, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  ptx::launch_dependents();  // which in turn wait for this kernel before they read or write what it does
  Gatekeeper gates;
  if (warp == kQueryLoaderWarp && lane == 0) {
    init_barriers(smem);
    ptx::fence_barrier_init();
  } else if (warp == kDealerWarp && lane == 0) {
    find_first_tile(smem.ring, params, kRows);
  } else if (warp == kGatekeeperWarp) {
    gates.find_units(smem.cut, params, kRows);
  } else if (warp == kLoaderWarp) {
    prefetch_maps(maps);
  }
  __syncwarp();
  ptx::sync_threads(kSetUpBarrier, kThreads);

  // One if / else over whole warpgroups: the compiler plans registers by it.
  if (warpgroup == 3) {
    ptx::lower_registers<kLoadRegisters>();
    if (warp == kDealerWarp) {
      if (lane == 0) deal_tiles(smem.ring, params, kRows, [](const TileRecord&) {});
      return;
    }
    if (warp == kLoaderWarp) {
      run_loader(smem, maps, params);
    } else if (warp == kQueryLoaderWarp) {
      run_query_loader(smem, maps, params);
    } else {
      ptx::wait_for_prerequisites();
      gates.open(params);
      gates.answer<Partials>(smem.cut);
      gates.clear();
    }
  } else if (warpgroup == 0) {
    ptx::lower_registers<kScoresRegisters>();
    ptx::wait_for_prerequisites();
    run_scores<Element>(smem, params);
    Partials::announce_partials();
  } else {
    ptx::raise_registers<kValuesRegisters>();
    ptx::wait_for_prerequisites();
    if (warpgroup == 1) {
      run_values<Element, Side::left>(smem, params);
    } else {
      run_values<Element, Side::right>(smem, params);
    }
    Partials::announce_partials();
    if (warpgroup == 1) write_padding<Element>(params);
    const auto await_shares = [&] { smem.cut.gates_answered.wait(0); };
    cuda::merge_cut_units<Element, tile::ColumnOrder::pairs, kRows, 10>(
        params, smem.cut.unit, smem.cut.shares, await_shares, smem.kv.strips[0][0].bytes, sizeof smem.kv.strips,
        smem.cut.partials_landed, kWarpgroupWarps, kMergeBarrier);
  }
}

}  // namespace flash_mla::sm90
