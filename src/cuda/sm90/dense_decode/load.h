// Step 3 of docs/algorithm.md [loader]: one warp brings Q of each tile and K of each block to shared memory.
//
//   waits for q_released, k_released; the copy engine announces q_landed, k_landed
#pragma once

#include "cuda/ptx/tma.h"
#include "cuda/sm90/common/kv_pipeline.h"
#include "cuda/sm90/dense_decode/smem.h"

namespace flash_mla::sm90 {

inline __device__ void load_queries(SharedMemory& smem, const TensorMaps& maps, const DecodeParams& params,
                                    const TileRecord& tile) {
  const int row = tile.first_query * params.work.heads_per_kv + tile.first_row;
  const int in_period = row % params.q_period, period = row / params.q_period;
  const int batch = params.work.cu_seqlens_q ? 0 : tile.request;
  smem.q_landed.arrive_expecting(kSlices * kSliceBytes);
#pragma unroll
  for (int slice = 0; slice < kLatentSlices; ++slice) {
    ptx::tma_load(smem.q[slice].bytes, maps.q_latent,
                  {slice * tile::kSliceColumns, in_period, period, tile.kv_head, batch}, smem.q_landed);
  }
  ptx::tma_load(smem.q[kLatentSlices].bytes, maps.q_rope, {0, in_period, period, tile.kv_head, batch}, smem.q_landed);
}

inline __device__ void run_loader(SharedMemory& smem, const TensorMaps& maps, const DecodeParams& params) {
  const int lane = threadIdx.x % 32;
  if (lane == 0) {
    for (const CUtensorMap* map : {&maps.q_latent, &maps.q_rope, &maps.k_latent, &maps.k_rope}) ptx::prefetch_map(*map);
  }
  TileReader tiles;
  std::uint32_t blocks = 0, query_tiles = 0;
  while (const TileRecord* tile = tiles.next(smem.ring)) {
    const int num_blocks = tile->block_end - tile->block_begin;
    if (num_blocks > 0) {
      const BoxWalk walk(params, *tile, lane);
      if (params.q_period > 0) {
        smem.q_released.wait((query_tiles++ & 1) ^ 1);
        if (lane == 0) load_queries(smem, maps, params, *tile);
      }
      load_blocks<SliceOrder>(smem.kv, maps, walk, tile->kv_head, params.page_size, num_blocks, blocks);
    }
    tiles.finish(smem.ring);
  }
}

}  // namespace flash_mla::sm90
