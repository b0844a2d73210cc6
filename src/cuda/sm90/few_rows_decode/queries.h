// Step 3 of docs/algorithm.md, the queries [group]: packed rows (query token, head) to shared memory, where the copy
// engine cannot bring them because they are no box of the tensor.
#pragma once

#include "cuda/ptx/fence.h"
#include "cuda/ptx/warpgroup.h"
#include "cuda/sm90/common/rows.h"
#include "cuda/sm90/few_rows_decode/smem.h"

namespace flash_mla::sm90::few_rows {

// Every warp of the group has finished with the last tile's Q: it has met the others after its last product with it.
template <class Element, int Rows>
__device__ __forceinline__ void gather_queries(SharedMemory<Rows>& smem, const DecodeParams& params,
                                               const TileRecord& tile) {
  const int chunk = threadIdx.x % 8;
#pragma unroll 1
  for (int row = threadIdx.x / 8; row < Rows; row += kWarpgroupThreads / 8) {
    uint4 values[kSlices] = {};
    if (row < tile.num_rows) {
      const auto* latent = static_cast<const Element*>(params.q_latent.data) +
                           row_offset(params.q_latent, params.work, tile, row) + chunk * 8;
      const auto* rope = static_cast<const Element*>(params.q_rope.data) +
                         row_offset(params.q_rope, params.work, tile, row) + chunk * 8;
#pragma unroll
      for (int slice = 0; slice < kLatentSlices; ++slice) {
        values[slice] = *reinterpret_cast<const uint4*>(latent + slice * tile::kSliceColumns);
      }
      values[kLatentSlices] = *reinterpret_cast<const uint4*>(rope);
    }
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      *reinterpret_cast<uint4*>(smem.q[slice] + tile::swizzled_chunk_bytes(row, chunk)) = values[slice];
    }
  }
  ptx::fence_async_shared();
  ptx::sync_threads(kGroupBarrier, kWarpgroupThreads);
}

}  // namespace flash_mla::sm90::few_rows
