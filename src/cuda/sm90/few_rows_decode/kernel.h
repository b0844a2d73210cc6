// Decode of units with few rows on Hopper: a thread block per part; each of its groups (config.h) has 16 rows.
//
//   for each tile of the part:                        docs/algorithm.md
//     loaders  K blocks and Q to shared memory
//     group    S^T = K Q^T, P^T = exp2(S^T - maximum), O^T += V^T P^T; O / sum, lse
//
// The dealer walks over the tiles.
#pragma once

#include "cuda/combine/merge_cut_units.h"
#include "cuda/ptx/dependent_launch.h"
#include "cuda/ptx/fence.h"
#include "cuda/sm90/common/padding.h"
#include "cuda/sm90/common/query_loader.h"
#include "cuda/sm90/few_rows_decode/epilogue.h"
#include "cuda/sm90/few_rows_decode/products.h"
#include "cuda/sm90/few_rows_decode/queries.h"

namespace flash_mla::sm90::few_rows {

// What the thread's four rows see.
struct Visibility {
  int visible[kThreadColumns];
  int first_masked_block;  // blocks before it are seen whole by every present row
};

__device__ __forceinline__ Visibility find_visibility(const Work& work, const TileRecord& tile, int first_row) {
  Visibility v;
#pragma unroll
  for (int& visible : v.visible) visible = tile.length;
  v.first_masked_block = tile.length / kBlockTokens;
  if (!work.causal || tile.queries == 1) return v;
#pragma unroll
  for (int c = 0; c < kThreadColumns; ++c) {
    const int row = first_row + row_of_column(threadIdx.x % 32, c);
    if (row < tile.num_rows) v.visible[c] = visible_to_row(work, tile, row);
  }
  v.first_masked_block = visible_to_row(work, tile, 0) / kBlockTokens;
  return v;
}

// Steps 3 to 7 for one tile; `blocks` counts those of all tiles.
template <class Element, int Groups>
__device__ __forceinline__ void run_tile(SharedMemory<Groups>& smem, const DecodeParams& params, const TileRecord& tile,
                                         std::uint32_t& blocks, std::uint32_t& query_tiles) {
  constexpr int kStages = Config<Groups>::kStages;
  const int index = Groups == 1 ? 0 : threadIdx.x / kWarpgroupThreads, lane = threadIdx.x % 32;
  const int barrier = kGroupBarrier + index, first_row = index * kGroupRows;
  GroupMemory& group = smem.groups[index];
  const int begin = tile.block_begin, end = tile.block_end;
  const Visibility v = find_visibility(params.work, tile, first_row);
  if (begin < end && params.q_period > 0) {
    smem.q_landed.wait(query_tiles++ & 1);
  } else if (begin < end) {
    gather_queries<Element>(smem, params, tile, first_row, barrier);
  }
  RowState rows;
  Accumulators acc;
  clear(rows, acc);
  float sum[kThreadColumns] = {};
#pragma unroll 1
  for (int block = begin; block < end; ++block, ++blocks) {
    const int stage = blocks % kStages;
    float s[kScoreRegisters], factor[kThreadColumns];
    multiply_scores<Element>(smem, first_row, stage, (blocks / kStages) & 1, s);
    if (lane == 0) {
      smem.kv.k_released[stage][kLatentSlices].arrive();
      if (block + 1 == end && params.q_period > 0) smem.q_released.arrive();
    }
    const int valid_rows = tile.length - block * kBlockTokens;
    // Each group for itself; their writes are the same. write_probabilities fences and meets.
    if (valid_rows < kBlockTokens) zero_rows(smem.kv, stage, 0, kLatentSlices, max_of(valid_rows, 0));
    if (block >= v.first_masked_block) mask_scores(s, block * kBlockTokens, v.visible);
    raise_maxima(group, s, params.scale_log2, rows, factor, barrier);
    write_probabilities<Element>(group, s, params.scale_log2, rows, barrier);
    rescale(acc, factor);
    issue_values<Element>(smem, group, stage, acc);
    if (block + 1 == end) {  // while the tensor cores are busy
      add_tokens(group, rows, sum, barrier);
      write_row_sums(params, tile, first_row, rows, sum);
    }
    finish_values(smem, stage);
  }
  if (begin >= end) write_row_sums(params, tile, first_row, rows, sum);
  if (tile.slot >= 0) {
    write_partial(params, tile, first_row, acc, sum);
  } else {
    write_results<Element>(group, params, tile, first_row, barrier, acc, sum);
  }
}

// Step 8. The sums of warps that share an item have the place of a block of tokens: all have been used.
template <class Element, int Groups>
__device__ __forceinline__ void merge_cut_units(SharedMemory<Groups>& smem, const DecodeParams& params) {
  using Mergers = cuda::Mergers<kMergingWarps>;
  const Mergers mergers{reinterpret_cast<typename Mergers::Sums&>(smem.kv.k[0]), 0, kMergeBarrier};
  Gates<Groups>::wait_for_gates();
#pragma unroll 1
  for (int i = 0; i < 2; ++i) {
    cuda::merge_shares<Element, tile::ColumnOrder::transposed, 9>(mergers, params, smem.cut.unit[i],
                                                                  smem.cut.shares[i]);
  }
}

template <class Element, int Groups>
__device__ __forceinline__ void run_group(SharedMemory<Groups>& smem, const DecodeParams& params) {
  ptx::wait_for_prerequisites();
  TileReader tiles;
  std::uint32_t blocks = 0, query_tiles = 0;
  while (const TileRecord* tile = tiles.next(smem.ring)) {
    run_tile<Element>(smem, params, *tile, blocks, query_tiles);
    tiles.finish(smem.ring);
  }
  Gates<Groups>::announce_partials();
  if (threadIdx.x < kWarpgroupThreads) write_padding<Element>(params);
}

// The dealer does not wait for the kernel before this one: the schedule and the lengths that it was made from were
// there before this kernel could begin, for the schedule kernel lets no other begin early and fences what it wrote.
// Nothing else may be read, and nothing written, before the kernel before has finished.
template <class Element, int Groups>
__global__ void __launch_bounds__(Config<Groups>::kThreads, 1)
    flash_fwd_splitkv_mla_kernel(const __grid_constant__ TensorMaps maps, const __grid_constant__ DecodeParams params) {
  extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];
  auto& smem = *reinterpret_cast<SharedMemory<Groups>*>(dynamic_shared_memory);
  using Config = Config<Groups>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  ptx::launch_dependents();  // which in turn wait for this kernel before they read or write what it does
  if (warp == Config::kDealerWarp) {
    init_barriers(smem, lane);
    ptx::fence_barrier_init();
    __syncwarp();
  }
  ptx::sync_threads(kSetUpBarrier, Config::kThreads);
  if (warp == Config::kDealerWarp) {
    if (lane == 0) deal_tiles(smem.ring, params, Groups * kGroupRows);
    __syncwarp();
  } else if (warp == Config::kLoaderWarp) {
    prefetch_maps(maps);
    ptx::wait_for_prerequisites();
    run_loader<SliceOrder>(smem.kv, smem.ring, maps, params, ptx::L2Priority::evict_first);
  } else if (warp == Config::kGatekeeperWarp) {
    ptx::wait_for_prerequisites();
    run_gatekeeper<Gates<Groups>>(smem.cut, params, Groups * kGroupRows);
  } else if (warp == Config::kQueryLoaderWarp) {
    ptx::wait_for_prerequisites();
    run_query_loader(smem.ring, smem.q[0], Groups * kGroupSliceBytes, smem.q_landed, smem.q_released, maps, params);
  } else if (warp < Config::kConsumerWarps) {
    run_group<Element>(smem, params);
  }
  if (warp < kMergingWarps) merge_cut_units<Element>(smem, params);
  ptx::wait_for_bulk_stores();
}

}  // namespace flash_mla::sm90::few_rows
