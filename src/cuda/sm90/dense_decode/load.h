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

// Blocks are read once a step: they leave the L2 cache before partials do, which are read soon. But where four thread
// blocks read a block, the last one would no longer find it.
inline __device__ void run_loader(SharedMemory& smem, const TensorMaps& maps, const DecodeParams& params) {
  const auto priority = params.cohort <= 2 ? ptx::L2Priority::evict_first : ptx::L2Priority::evict_normal;
  run_loader<StripOrder>(smem.kv, smem.ring, maps, params, priority, false);
}

}  // namespace flash_mla::sm90
