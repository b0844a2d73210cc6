// Step 3 of docs/algorithm.md [query loader]: one warp brings Q of each tile to shared memory.
//
//   waits for q_released; the copy engine announces q_landed
#pragma once

#include "cuda/ptx/dependent_launch.h"
#include "cuda/ptx/tma.h"
#include "cuda/sm90/common/geometry.h"
#include "cuda/sm90/common/params.h"
#include "cuda/sm90/common/tile_ring.h"

namespace flash_mla::sm90 {

// A loop that is not unrolled: its code arrives from memory as cold as a small decode's data.
inline __device__ void load_queries(unsigned char* q, int slice_bytes, ptx::Barrier& q_landed, const TensorMaps& maps,
                                    const DecodeParams& params, const TileRecord& tile) {
  const int row = tile.first_query * params.work.heads_per_kv + tile.first_row;
  const int in_period = row % params.q_period, period = row / params.q_period;
  const int batch = params.work.cu_seqlens_q ? 0 : tile.request;
  ptx::wait_for_prerequisites();
  q_landed.arrive_expecting(kSlices * slice_bytes);
  const bool one_box = params.work.num_heads_kv == 1;
#pragma unroll 1
  for (int slice = 0; slice < (one_box ? 1 : kLatentSlices); ++slice) {
    ptx::tma_load(q + slice * slice_bytes, maps.q_latent,
                  {slice * tile::kSliceColumns, in_period, period, tile.kv_head, batch}, q_landed);
  }
  ptx::tma_load(q + kLatentSlices * slice_bytes, maps.q_rope, {0, in_period, period, tile.kv_head, batch}, q_landed);
}

inline __device__ void run_query_loader(TileRing& ring, unsigned char* q, int slice_bytes, ptx::Barrier& q_landed,
                                        ptx::Barrier& q_released, const TensorMaps& maps, const DecodeParams& params) {
  TileReader tiles;
  std::uint32_t query_tiles = 0;
  while (const TileRecord* tile = tiles.next(ring)) {
    if (tile->block_begin < tile->block_end && params.q_period > 0) {
      q_released.wait((query_tiles++ & 1) ^ 1);
      if (threadIdx.x % 32 == 0) load_queries(q, slice_bytes, q_landed, maps, params, *tile);
    }
    tiles.finish(ring);
  }
}

inline __device__ void prefetch_maps(const TensorMaps& maps) {
  if (threadIdx.x % 32 != 0) return;
  for (const CUtensorMap* map : {&maps.k_latent, &maps.q_latent, &maps.k_rope, &maps.q_rope}) ptx::prefetch_map(*map);
}

}  // namespace flash_mla::sm90
