// Step 3 of docs/algorithm.md: one warp brings K of each block to shared memory [loader], another one Q of each tile
// [query loader], so that neither waits for the other's requests.
//
//   loader        waits for k_released; the copy engine announces k_landed
//   query loader  waits for q_released; the copy engine announces q_landed
#pragma once

#include "cuda/ptx/tma.h"
#include "cuda/sm90/common/kv_pipeline.h"
#include "cuda/sm90/dense_decode/smem.h"

namespace flash_mla::sm90 {

// A loop that is not unrolled: its code arrives from memory as cold as a small decode's data.
inline __device__ void load_queries(SharedMemory& smem, const TensorMaps& maps, const DecodeParams& params,
                                    const TileRecord& tile) {
  const int row = tile.first_query * params.work.heads_per_kv + tile.first_row;
  const int in_period = row % params.q_period, period = row / params.q_period;
  const int batch = params.work.cu_seqlens_q ? 0 : tile.request;
  smem.q_landed.arrive_expecting(kSlices * kSliceBytes);
#pragma unroll 1
  for (int slice = 0; slice < kLatentSlices; ++slice) {
    ptx::tma_load(smem.q[slice].bytes, maps.q_latent,
                  {slice * tile::kSliceColumns, in_period, period, tile.kv_head, batch}, smem.q_landed);
  }
  ptx::tma_load(smem.q[kLatentSlices].bytes, maps.q_rope, {0, in_period, period, tile.kv_head, batch}, smem.q_landed);
}

inline __device__ void prefetch_maps(const TensorMaps& maps) {
  if (threadIdx.x % 32 != 0) return;
  for (const CUtensorMap* map : {&maps.k_latent, &maps.q_latent, &maps.k_rope, &maps.q_rope}) ptx::prefetch_map(*map);
}

inline __device__ void run_query_loader(SharedMemory& smem, const TensorMaps& maps, const DecodeParams& params) {
  TileReader tiles;
  std::uint32_t query_tiles = 0;
  while (const TileRecord* tile = tiles.next(smem.ring)) {
    if (tile->block_begin < tile->block_end && params.q_period > 0) {
      smem.q_released.wait((query_tiles++ & 1) ^ 1);
      if (threadIdx.x % 32 == 0) load_queries(smem, maps, params, *tile);
    }
    tiles.finish(smem.ring);
  }
}

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
