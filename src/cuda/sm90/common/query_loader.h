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

// Where a tile's rows begin in the tensor maps of q.
struct QueryBox {
  std::int32_t in_period, period, batch;
};
inline __device__ QueryBox find_query_box(const DecodeParams& params, const TileRecord& tile) {
  const int row = tile.first_query * params.work.heads_per_kv + tile.first_row;
  return {row % params.q_period, row / params.q_period, params.work.cu_seqlens_q ? 0 : tile.request};
}

// Asks for latent slices from `first` to before `end`, which come to lie one after the other at `to`. `per_box` slices
// are a box, or one where there are several kv heads. A loop that is not unrolled: its code arrives from memory as cold
// as a small decode's data.
inline __device__ void load_query_slices(unsigned char* to, int slice_bytes, int first, int end, int per_box,
                                         ptx::Barrier& landed, const TensorMaps& maps, const DecodeParams& params,
                                         const QueryBox& box, int kv_head) {
  const bool one_head = params.work.num_heads_kv == 1;
#pragma unroll 1
  for (int slice = first; slice < end; slice += one_head ? per_box : 1) {
    ptx::tma_load(
        to + (slice - first) * slice_bytes, maps.q_latent,
        {one_head ? 0 : slice * tile::kSliceColumns, box.in_period, box.period, one_head ? slice : kv_head, box.batch},
        landed);
  }
}

// The slices from FirstSlice on, rope last. load_first(tile, box) is called for the first tile, by one thread.
template <int FirstSlice, int SlicesPerBox, class LoadFirst>
__device__ __forceinline__ void run_query_loader(TileRing& ring, unsigned char* q, int slice_bytes,
                                                 ptx::Barrier& q_landed, ptx::Barrier& q_released,
                                                 const TensorMaps& maps, const DecodeParams& params,
                                                 LoadFirst load_first) {
  TileReader tiles;
  std::uint32_t query_tiles = 0;
  const bool gathered = params.q_period == 0;  // by those who need them
  while (const TileRecord* tile = tiles.next(ring)) {
    if (tile->block_begin < tile->block_end) {
      if (!gathered) q_released.wait((query_tiles & 1) ^ 1);
      if (threadIdx.x % 32 == 0) {
        const QueryBox box = gathered ? QueryBox{} : find_query_box(params, *tile);
        ptx::wait_for_prerequisites();
        if (query_tiles == 0) load_first(*tile, box);
        if (!gathered) {
          q_landed.arrive_expecting((kSlices - FirstSlice) * slice_bytes);
          load_query_slices(q, slice_bytes, FirstSlice, kLatentSlices, SlicesPerBox, q_landed, maps, params, box,
                            tile->kv_head);
          ptx::tma_load(q + (kLatentSlices - FirstSlice) * slice_bytes, maps.q_rope,
                        {0, box.in_period, box.period, tile->kv_head, box.batch}, q_landed);
        }
      }
      ++query_tiles;
    }
    tiles.finish(ring);
  }
}

inline __device__ void prefetch_maps(const TensorMaps& maps) {
  if (threadIdx.x % 32 != 0) return;
  for (const CUtensorMap* map : {&maps.k_latent, &maps.q_latent, &maps.k_rope, &maps.q_rope}) ptx::prefetch_map(*map);
}

}  // namespace flash_mla::sm90
