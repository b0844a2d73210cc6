// Decode of units with few rows on Hopper: a thread block per part, one warpgroup, the group, for the arithmetic.
//
//   for each tile of the part:                        docs/algorithm.md
//     loaders  K blocks and Q to shared memory
//     group    S^T = K Q^T, P^T = exp2(S^T - maximum), O^T += V^T P^T; O / sum, lse
//   merge of the units that the part has cut, by all warps
//
// The dealer walks over the tiles; the gatekeeper knows when cut units are complete.
#pragma once

#include "cuda/ptx/dependent_launch.h"
#include "cuda/ptx/fence.h"
#include "cuda/sm90/common/padding.h"
#include "cuda/sm90/common/query_loader.h"
#include "cuda/sm90/few_rows_decode/large_step.h"
#include "cuda/sm90/few_rows_decode/products.h"
#include "cuda/sm90/few_rows_decode/queries.h"
#include "cuda/sm90/few_rows_decode/small_step.h"

namespace flash_mla::sm90::few_rows {

// What the thread's rows see.
template <int Rows>
struct Visibility {
  int visible[kThreadColumns<Rows>];
  int first_masked_block;  // blocks before it are seen whole by every present row
};

template <int Rows>
__device__ __forceinline__ Visibility<Rows> find_visibility(const Work& work, const TileRecord& tile) {
  Visibility<Rows> v;
#pragma unroll
  for (int& visible : v.visible) visible = tile.length;
  v.first_masked_block = tile.length / kBlockTokens;
  if (!work.causal || tile.queries == 1) return v;
#pragma unroll
  for (int c = 0; c < kThreadColumns<Rows>; ++c) {
    const int row = row_of_column(threadIdx.x % 32, c);
    if (row < tile.num_rows) v.visible[c] = visible_to_row(work, tile, row);
  }
  v.first_masked_block = visible_to_row(work, tile, 0) / kBlockTokens;
  return v;
}

// Steps 3 to 7 for one tile; `blocks` counts those of all tiles.
template <class Element, class Step, int Rows>
__device__ __forceinline__ void run_tile(SharedMemory<Rows>& smem, const DecodeParams& params, const TileRecord& tile,
                                         std::uint32_t& blocks, std::uint32_t& query_tiles) {
  const int lane = threadIdx.x % 32, begin = tile.block_begin, end = tile.block_end;
  const bool is_partial = tile.slot >= 0;
  const Visibility v = find_visibility<Rows>(params.work, tile);
  typename Step::PartialPlace place;
  if (is_partial) place = Step::place_of_partial(params, tile);
  if (begin < end && params.q_period > 0) {
    smem.q_landed.wait(query_tiles++ & 1);
  } else if (begin < end) {
    gather_queries<Element>(smem, params, tile);
  }
  RowState<Rows> rows;
  Accumulators<Rows> acc;
  clear(rows, acc);
  float sum[kThreadColumns<Rows>] = {};
#pragma unroll 1
  for (int block = begin; block < end; ++block, ++blocks) {
    const int stage = ptx::uniform(blocks % kStages);
    float s[kTileRegisters<Rows>], factor[kThreadColumns<Rows>];
    multiply_scores<Element>(smem, stage, (blocks / kStages) & 1, s);
    if (lane == 0) {
      smem.kv.k_released[stage][kRopeStrip].arrive();
      if (block + 1 == end && params.q_period > 0) smem.q_released.arrive();
    }
    const int valid_rows = tile.length - block * kBlockTokens;
    const int rows_before = rows_before_page(params.page_size, tile.length, block);
    if (valid_rows < kBlockTokens && !page_is_block(params.page_size)) {  // write_probabilities fences and meets
      zero_rows(smem.kv.k[stage], kLatentSlices, max_of(valid_rows, 0));
    }
    if (block >= v.first_masked_block) mask_scores<Rows>(s, block * kBlockTokens, rows_before, v.visible);
    raise_maxima<Rows>(smem, s, params.scale_log2, rows, factor);
    write_probabilities<Element>(smem, s, params.scale_log2, rows);
    rescale(acc, factor);
    issue_values<Element>(smem, stage, acc);
    if (block + 1 == end) {  // while the tensor cores are busy
      add_tokens(smem, rows, sum);
      if (!is_partial) write_lse(params, tile, rows, sum);
    }
    finish_values(smem, stage);
  }
  if (begin >= end && !is_partial) write_lse(params, tile, rows, sum);
  if (is_partial) {
    Step::write_partial(smem, params, place, tile, rows, acc, sum);
  } else {
    write_results<Element>(smem, params, tile, acc, sum);
  }
}

template <class Element, class Step, int Rows>
__device__ __forceinline__ void run_group(SharedMemory<Rows>& smem, const DecodeParams& params) {
  TileReader tiles;
  std::uint32_t blocks = 0, query_tiles = 0;
  while (const TileRecord* tile = tiles.next(smem.ring)) {
    run_tile<Element, Step>(smem, params, *tile, blocks, query_tiles);
    tiles.finish(smem.ring);
  }
}

// Tiles and cut units are found before the kernel before this one has finished: the schedule and the lengths that it
// was made from were there before this kernel could begin, for the schedule kernel lets no other begin early and fences
// what it wrote. Nothing else may be read but as a hint (prefetch_tile), and nothing written, before the kernel
// before has finished.
template <class Element, int Rows, class Step>
__global__ void __launch_bounds__(kThreads, 1)
    flash_fwd_splitkv_mla_kernel(const __grid_constant__ TensorMaps maps, const __grid_constant__ DecodeParams params) {
  extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];
  auto& smem = *reinterpret_cast<SharedMemory<Rows>*>(dynamic_shared_memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  ptx::launch_dependents();  // which in turn wait for this kernel before they read or write what it does
  typename Step::template Gatekeeper<Rows> gates;
  if (warp == kQueryLoaderWarp && lane == 0) {
    init_barriers<Step>(smem);
    ptx::fence_barrier_init();
  } else if (warp == kDealerWarp && lane == 0) {
    find_first_tile(smem.ring, params, Rows);
  } else if (warp == kGatekeeperWarp) {
    gates.find_units(smem, params);
  } else if (warp == kLoaderWarp) {
    prefetch_maps(maps);
  }
  __syncwarp();
  ptx::sync_threads(kSetUpBarrier, kThreads);
  if (warp == kDealerWarp) {
    if (lane == 0) {
      deal_tiles(smem.ring, params, Rows,
                 [&](const TileRecord& first) { prefetch_tile<kStages>(maps, params, first, kPriority); });
    }
    __syncwarp();
  } else if (warp == kLoaderWarp) {
    run_loader<StripOrder>(smem.kv, smem.ring, maps, params, kPriority, [](const auto&...) {});
  } else if (warp == kQueryLoaderWarp) {
    run_query_loader<0, kLatentSlices>(smem.ring, smem.q[0], kQuerySliceBytes<Rows>, smem.q_landed, smem.q_released,
                                       maps, params, [](const auto&...) {});
  } else if (warp == kGatekeeperWarp) {
    gates.template run<Element>(smem, params);
  } else {
    ptx::wait_for_prerequisites();
    run_group<Element, Step>(smem, params);
    Step::announce_partials(smem);
    write_padding<Element>(params);
  }
  gates.template merge<Element>(smem, params);
  gates.clear();
  ptx::wait_for_bulk_stores();
}

}  // namespace flash_mla::sm90::few_rows
