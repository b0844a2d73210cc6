// Decode of units with few rows on Hopper: a thread block per part; each of its groups (config.h) has 16 rows.
//
//   for each tile of the part:                        docs/algorithm.md
//     loader   K blocks to shared memory
//     group    S^T = K Q^T, P^T = exp2(S^T - maximum), O^T += V^T P^T; O / sum, lse
//
// The dealer walks over the tiles.
#pragma once

#include "cuda/ptx/dependent_launch.h"
#include "cuda/ptx/fence.h"
#include "cuda/sm90/common/padding.h"
#include "cuda/sm90/few_rows_decode/epilogue.h"
#include "cuda/sm90/few_rows_decode/products.h"
#include "cuda/sm90/few_rows_decode/queries.h"

namespace flash_mla::sm90::few_rows {

// Rows of V past the request's last token may hold anything, and 0 * NaN is NaN: zeroes them. Each group does so for
// itself; their writes are the same.
template <int Groups>
__device__ __forceinline__ void zero_rows_from(SharedMemory<Groups>& smem, int stage, int first_row) {
  const int chunks = (kBlockTokens - first_row) * (tile::kRowBytes / 16);
#pragma unroll 1
  for (int slice = 0; slice < kLatentSlices; ++slice) {
    auto* rows = reinterpret_cast<uint4*>(smem.kv.k[stage][slice].bytes + first_row * tile::kRowBytes);
#pragma unroll 1
    for (int i = threadIdx.x % kWarpgroupThreads; i < chunks; i += kWarpgroupThreads) rows[i] = uint4{0, 0, 0, 0};
  }
}

// What the thread's four rows see.
struct Visibility {
  int visible[kThreadColumns];
  int first_masked_block;  // blocks before it are seen whole by every present row
};

__device__ __forceinline__ Visibility find_visibility(const Work& work, const TileRecord& tile, int first_row) {
  Visibility v;
#pragma unroll
  for (int c = 0; c < kThreadColumns; ++c) {
    const int row = first_row + row_of_column(threadIdx.x % 32, c);
    v.visible[c] = row < tile.num_rows ? visible_to_row(work, tile, row) : tile.length;
  }
  v.first_masked_block = visible_to_row(work, tile, 0) / kBlockTokens;
  return v;
}

template <class Element, int Groups>
__device__ __forceinline__ void run_group(SharedMemory<Groups>& smem, const DecodeParams& params) {
  constexpr int kStages = Config<Groups>::kStages;
  const int index = Groups == 1 ? 0 : threadIdx.x / kWarpgroupThreads;
  const int barrier = 1 + index, first_row = index * kGroupRows;
  GroupMemory& group = smem.groups[index];
  TileReader tiles;
  std::uint32_t blocks = 0;
  while (const TileRecord* tile = tiles.next(smem.ring)) {
    const int begin = tile->block_begin, end = tile->block_end;
    const Visibility v = find_visibility(params.work, *tile, first_row);
    if (begin < end) gather_queries<Element>(group, params, *tile, first_row, barrier);
    RowState rows;
    Accumulators acc;
#pragma unroll
    for (int c = 0; c < kThreadColumns; ++c) rows.maximum[c] = kNegativeInfinity, rows.sum[c] = 0.f;
#pragma unroll
    for (auto& slice : acc.o) {
#pragma unroll
      for (float& x : slice) x = 0.f;
    }
#pragma unroll 1
    for (int block = begin; block < end; ++block, ++blocks) {
      const int stage = blocks % kStages;
      float s[kScoreRegisters], factor[kThreadColumns];
      multiply_scores<Element>(smem, group, stage, (blocks / kStages) & 1, s);
      const int valid_rows = tile->length - block * kBlockTokens;
      if (valid_rows < kBlockTokens) zero_rows_from(smem, stage, max_of(valid_rows, 0));
      if (block >= v.first_masked_block) mask_scores(s, block * kBlockTokens, v.visible);
      raise_maxima(group, s, params.scale_log2, rows, factor, barrier);
      write_probabilities<Element>(group, s, params.scale_log2, rows, barrier);
      rescale(acc, factor);
      multiply_values<Element>(smem, group, stage, acc);
    }
    float sum[kThreadColumns];
#pragma unroll
    for (int c = 0; c < kThreadColumns; ++c) sum[c] = rows.sum[c];
    if (begin < end) reduce_rows(group, sum, barrier, [](float a, float b) { return a + b; });
    write_rows<Element>(params, *tile, first_row, acc, rows, sum);
    tiles.finish(smem.ring);
  }
}

template <int Groups>
__device__ __forceinline__ void run_loader(SharedMemory<Groups>& smem, const TensorMaps& maps,
                                           const DecodeParams& params) {
  TileReader tiles;
  std::uint32_t blocks = 0;
  while (const TileRecord* tile = tiles.next(smem.ring)) {
    const int num_blocks = tile->block_end - tile->block_begin;
    if (num_blocks > 0) {
      const BoxWalk walk(params, *tile, threadIdx.x % 32);
      load_blocks<SliceOrder>(smem.kv, maps, walk, tile->kv_head, params.page_size, num_blocks, blocks);
    }
    tiles.finish(smem.ring);
  }
}

// The schedule and the lengths that it was made from are older than the kernel before this one, so the dealer does not
// wait for that kernel; nothing else may be read, and nothing written, before it has finished.
template <class Element, int Groups>
__global__ void __launch_bounds__(Config<Groups>::kThreads, Config<Groups>::kThreadBlocks)
    flash_fwd_splitkv_mla_kernel(const __grid_constant__ TensorMaps maps, const __grid_constant__ DecodeParams params) {
  extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];
  auto& smem = *reinterpret_cast<SharedMemory<Groups>*>(dynamic_shared_memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (warp == 0) {
    init_barriers(smem, lane);
    ptx::fence_barrier_init();
  }
  __syncthreads();
  if (warp == Config<Groups>::kDealerWarp) {
    if (lane == 0) deal_tiles(smem.ring, params, Groups * kGroupRows);
    return;
  }
  if (warp == Config<Groups>::kLoaderWarp && lane == 0) {
    ptx::prefetch_map(maps.k_latent);
    ptx::prefetch_map(maps.k_rope);
  }
  ptx::wait_for_prerequisites();
  ptx::launch_dependents();  // the combine kernel, which in turn waits for this one before it reads a partial
  if (warp == Config<Groups>::kLoaderWarp) {
    run_loader(smem, maps, params);
  } else {
    run_group<Element>(smem, params);
    if (warp < kWarpgroupWarps) write_padding<Element>(params);
  }
}

}  // namespace flash_mla::sm90::few_rows
