// Step 3 of docs/algorithm.md: one warp brings K of each block to shared memory [loader], another one Q of each tile
// [query loader], so that neither waits for the other's requests; but the first strip of Q travels with K.
//
//   loader        waits for k_released; the copy engine announces k_landed
//   query loader  waits for q_released; the copy engine announces q_landed
#pragma once

#include "cuda/ptx/tma.h"
#include "cuda/sm90/common/kv_pipeline.h"
#include "cuda/sm90/common/query_loader.h"
#include "cuda/sm90/dense_decode/smem.h"

namespace flash_mla::sm90 {

// The first strip of a tile's Q, ahead of its blocks, by one thread; where the scores role gathers Q, the place for it.
inline __device__ void load_first_query_strip(KvRing& kv, std::uint32_t place, const TensorMaps& maps,
                                              const DecodeParams& params, const TileRecord& tile, const QueryBox& box) {
  ptx::Barrier& landed = kv.k_landed[place];
  if (params.q_period == 0) {
    landed.arrive();
    return;
  }
  landed.arrive_expecting(kStripBytes);
  load_query_slices(kv.strips[place]->bytes, kSliceBytes, 0, kStripSlices, kStripSlices, landed, maps, params, box,
                    tile.kv_head);
}

// The first tile's strip is brought by the query loader, while the loader looks up the first page. The others' are
// brought by the loader: who fills the ring must wait for each of its places in turn.
inline __device__ void run_query_loader(SharedMemory& smem, const TensorMaps& maps, const DecodeParams& params) {
  run_query_loader<kQuerySlicesInRegisters, kStripSlices>(smem.ring, smem.q[0].bytes, kSliceBytes, smem.q_landed,
                                                          smem.q_released, maps, params,
                                                          [&](const TileRecord& tile, const QueryBox& box) {
                                                            load_first_query_strip(smem.kv, 0, maps, params, tile, box);
                                                          });
}

// Blocks are read once a step: they leave the L2 cache before partials do, which are read soon. But where four thread
// blocks read a block, the last one would no longer find it.
inline __device__ void run_loader(SharedMemory& smem, const TensorMaps& maps, const DecodeParams& params) {
  const auto priority = params.cohort <= 2 ? ptx::L2Priority::evict_first : ptx::L2Priority::evict_normal;
  const auto begin_tile = [&](const TileRecord& tile, KvRing::Cursor& at) {
    if (threadIdx.x % 32 == 0 && !at.begins()) {
      const RingPosition& strips = at.strips();
      smem.kv.k_released[strips.place()].wait(strips.parity() ^ 1);
      const QueryBox box = params.q_period == 0 ? QueryBox{} : find_query_box(params, tile);
      load_first_query_strip(smem.kv, strips.place(), maps, params, tile, box);
    }
    at.pass_queries();
  };
  run_loader<StripOrder>(smem.kv, smem.ring, maps, params, priority, begin_tile);
}

}  // namespace flash_mla::sm90
