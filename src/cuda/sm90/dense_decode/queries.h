// Step 3 of docs/algorithm.md, the queries [scores]: Q where the copy engine cannot bring it, because 64 packed rows
// (query token, head) are no box of the tensor. The first strip goes to its place in the ring of strips.
//
// Run by the scores role, which alone reads Q: waits for nothing, announces nothing.
#pragma once

#include "cuda/ptx/fence.h"
#include "cuda/ptx/warpgroup.h"
#include "cuda/sm90/common/rows.h"
#include "cuda/sm90/dense_decode/smem.h"

namespace flash_mla::sm90 {

template <class Element>
__device__ void gather_queries(SharedMemory& smem, Slice* first_strip, const DecodeParams& params,
                               const TileRecord& tile) {
  const int thread = threadIdx.x % kWarpgroupThreads, chunk = thread % 8;
  ptx::sync_threads(kScoresBarrier, kWarpgroupThreads);  // every warp has finished with the last tile's Q
#pragma unroll 1
  for (int row = thread / 8; row < kRows; row += kWarpgroupThreads / 8) {
    const bool present = row < tile.num_rows;
    const Element* latent = nullptr;
    const Element* rope = nullptr;
    if (present) {
      latent = static_cast<const Element*>(params.q_latent.data) + row_offset(params.q_latent, params.work, tile, row);
      rope = static_cast<const Element*>(params.q_rope.data) + row_offset(params.q_rope, params.work, tile, row);
    }
#pragma unroll 1
    for (int slice = 0; slice < kSlices; ++slice) {
      uint4 value = {0, 0, 0, 0};
      if (present) {
        const Element* from = slice == kLatentSlices ? rope : latent + slice * tile::kSliceColumns;
        value = *reinterpret_cast<const uint4*>(from + chunk * 8);
      }
      Slice& to = slice < kStripSlices ? first_strip[slice] : smem.q[slice - kStripSlices];
      *reinterpret_cast<uint4*>(to.bytes + tile::swizzled_chunk_bytes(row, chunk)) = value;
    }
  }
  ptx::fence_async_shared();
  ptx::sync_threads(kScoresBarrier, kWarpgroupThreads);
}

}  // namespace flash_mla::sm90
