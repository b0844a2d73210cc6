// Step 3 of docs/algorithm.md: one warp brings K of each block to shared memory [loader], another one Q of each tile
// [query loader], so that neither waits for the other's requests.
//
//   loader        waits for k_released; the copy engine announces k_landed
//   query loader  waits for q_released; the copy engine announces q_landed
#pragma once

#include "cuda/ptx/tma.h"
#include "cuda/sm90/common/kv_pipeline.h"
#include "cuda/sm90/common/query_loader.h"
#include "cuda/sm90/dense_decode/smem.h"

namespace flash_mla::sm90 {

inline __device__ void run_loader(SharedMemory& smem, const TensorMaps& maps, const DecodeParams& params) {
  // Where four thread blocks read a block, the last one would no longer find it in the L2 cache.
  const auto priority = params.cohort <= 2 ? ptx::L2Priority::evict_first : ptx::L2Priority::evict_normal;
  TileReader tiles;
  std::uint32_t blocks = 0;
  while (const TileRecord* tile = tiles.next(smem.ring)) {
    const int num_blocks = tile->block_end - tile->block_begin;
    if (num_blocks > 0) {
      const BoxWalk walk(params, *tile, threadIdx.x % 32);
      load_blocks<SliceOrder>(smem.kv, maps, walk, tile->kv_head, params.page_size, num_blocks, blocks, priority);
    }
    tiles.finish(smem.ring);
  }
}

}  // namespace flash_mla::sm90
