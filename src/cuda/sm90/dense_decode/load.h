// The loader: one warp brings Q of each tile and K of each block to shared memory.
//
//   waits for q_released, k_released; the copy engine announces q_landed, k_landed
//
// A block of 64 tokens is up to four boxes, one per page of 16, 32 or 64 tokens; lane i looks up and loads box i. Boxes
// past the request's last page are asked for at page num_pages, which lies outside the tensor and arrives as zeros.
#pragma once

#include "cuda/ptx/tma.h"
#include "cuda/sm90/dense_decode/params.h"
#include "cuda/sm90/dense_decode/smem.h"
#include "cuda/sm90/dense_decode/tiles.h"

namespace flash_mla::sm90 {

// Where a lane's box of a block lies in the cache.
struct Box {
  std::int32_t page;
  std::int32_t row;  // within the page
};

inline __device__ Box find_box(const DecodeParams& params, const TileRecord& tile, int block, int rows_per_box,
                               int lane) {
  const int token = block * kBlockTokens + lane * rows_per_box;
  const int page = token / params.page_size;
  const bool exists = token < tile.length && page < params.block_table_columns;
  const std::int32_t* table = params.block_table + tile.request * params.block_table_stride;
  return {exists ? table[page] : params.num_pages, token % params.page_size};
}

inline __device__ void load_queries(SharedMemory& smem, const TensorMaps& maps, const DecodeParams& params,
                                    const TileRecord& tile) {
  const int row = tile.first_query * params.work.heads_per_kv + tile.first_row;
  const int in_period = row % params.q_period, period = row / params.q_period;
  const int batch = params.work.cu_seqlens_q ? 0 : tile.request;
  smem.q_landed.arrive_expecting(kSlices * kSliceBytes);
  for (int slice = 0; slice < kLatentSlices; ++slice) {
    ptx::tma_load(smem.q[slice].bytes, maps.q_latent,
                  {slice * tile::kSliceColumns, in_period, period, tile.kv_head, batch}, smem.q_landed);
  }
  ptx::tma_load(smem.q[kLatentSlices].bytes, maps.q_rope, {0, in_period, period, tile.kv_head, batch}, smem.q_landed);
}

inline __device__ void load_block(SharedMemory& smem, const TensorMaps& maps, Box box, int kv_head, int rows_per_box,
                                  int lane, int stage, std::uint32_t parity) {
#pragma unroll 1
  for (int position = 0; position < kSlices; ++position) {
    const int slice = slice_in_order(position);
    smem.k_released[stage][slice].wait(parity);
    if (lane == 0) smem.k_landed[stage][slice].arrive_expecting(kSliceBytes);
    __syncwarp();
    if (lane * rows_per_box < kBlockTokens) {
      unsigned char* to = smem.k[stage][slice].bytes + lane * rows_per_box * tile::kRowBytes;
      const bool rope = slice == kLatentSlices;
      ptx::tma_load(to, rope ? maps.k_rope : maps.k_latent,
                    {rope ? 0 : slice * tile::kSliceColumns, box.row, kv_head, box.page}, smem.k_landed[stage][slice]);
    }
  }
}

inline __device__ void run_loader(SharedMemory& smem, const TensorMaps& maps, const DecodeParams& params) {
  const int lane = threadIdx.x % 32;
  const int rows_per_box = min_of(params.page_size, kBlockTokens);
  TileReader tiles;
  std::uint32_t blocks = 0, query_tiles = 0;
  while (const TileRecord* tile = tiles.next(smem)) {
    const int begin = tile->block_begin, end = tile->block_end, kv_head = tile->kv_head;
    if (begin < end) {
      if (params.q_period > 0) {
        smem.q_released.wait((query_tiles++ & 1) ^ 1);
        if (lane == 0) load_queries(smem, maps, params, *tile);
      }
      Box next = find_box(params, *tile, begin, rows_per_box, lane);
#pragma unroll 1
      for (int block = begin; block < end; ++block, ++blocks) {
        const Box box = next;
        if (block + 1 < end) next = find_box(params, *tile, block + 1, rows_per_box, lane);
        load_block(smem, maps, box, kv_head, rows_per_box, lane, blocks % kStages, ((blocks / kStages) & 1) ^ 1);
      }
    }
    tiles.finish(smem);
  }
}

}  // namespace flash_mla::sm90
