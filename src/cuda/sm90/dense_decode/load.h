// Step 3 of docs/algorithm.md [loader]: one warp brings Q of each tile and K of each block to shared memory.
//
//   waits for q_released, k_released; the copy engine announces q_landed, k_landed
//
// A block of 64 tokens is one box, or several where pages have 16 or 32 tokens; lane i looks up and loads box i. Boxes
// past the request's last page are asked for at page num_pages, which lies outside the tensor and arrives as zeros.
#pragma once

#include "cuda/ptx/tma.h"
#include "cuda/sm90/dense_decode/params.h"
#include "cuda/sm90/dense_decode/smem.h"
#include "cuda/sm90/dense_decode/tiles.h"

namespace flash_mla::sm90 {

// Where a lane's box lies in the cache, block after block of a request. The page of the next block is looked up while
// the present one is loaded.
class BoxWalk {
 public:
  __device__ BoxWalk(const DecodeParams& params, const TileRecord& tile, int lane)
      : params_(params),
        table_(params.block_table + tile.request * params.block_table_stride),
        pages_(min_of<std::int64_t>(ceil_div(tile.length, params.page_size), params.block_table_columns)) {
    const int token = tile.block_begin * kBlockTokens + lane * min_of(params.page_size, kBlockTokens);
    index_ = token / params.page_size;
    row_ = token - index_ * params.page_size;
    page_ = look_up();
  }

  [[nodiscard]] __device__ __forceinline__ int page() const { return page_; }
  [[nodiscard]] __device__ __forceinline__ int row() const { return row_; }  // within the page

  __device__ __forceinline__ void next_block() {
    if (params_.page_size >= kBlockTokens) {
      row_ += kBlockTokens;
      if (row_ < params_.page_size) return;
      row_ = 0;
      ++index_;
    } else {
      index_ += kBlockTokens / params_.page_size;
    }
    page_ = look_up();
  }

 private:
  __device__ __forceinline__ int look_up() const { return index_ < pages_ ? table_[index_] : params_.num_pages; }

  const DecodeParams& params_;
  const std::int32_t* table_;
  int pages_;
  int index_, row_, page_;
};

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

// Loads one slice of a lane's box.
__device__ __forceinline__ void load_slice(SharedMemory& smem, const TensorMaps& maps, int stage, int slice,
                                           int first_row, int row, int kv_head, int page) {
  const bool rope = slice == kLatentSlices;
  ptx::tma_load(smem.k[stage][slice].bytes + first_row * tile::kRowBytes, rope ? maps.k_rope : maps.k_latent,
                {rope ? 0 : slice * tile::kSliceColumns, row, kv_head, page}, smem.k_landed[stage][slice]);
}

// Blocks of one box: a single thread does all.
__device__ __forceinline__ void load_whole_blocks(SharedMemory& smem, const TensorMaps& maps, BoxWalk walk, int kv_head,
                                                  int num_blocks, std::uint32_t& blocks) {
#pragma unroll 1
  for (const std::uint32_t end = blocks + num_blocks; blocks != end; ++blocks) {
    const int stage = blocks % kStages, page = walk.page(), row = walk.row();
    const std::uint32_t parity = ((blocks / kStages) & 1) ^ 1;
    if (blocks + 1 != end) walk.next_block();
#pragma unroll
    for (int position = 0; position < kSlices; ++position) {
      const int slice = slice_in_order(position);
      smem.k_released[stage][slice].wait(parity);
      smem.k_landed[stage][slice].arrive_expecting(kSliceBytes);
      load_slice(smem, maps, stage, slice, 0, row, kv_head, page);
    }
  }
}

// Blocks of several boxes: one a lane. Pages are shorter than a block, so every box begins its page.
__device__ __forceinline__ void load_pieced_blocks(SharedMemory& smem, const TensorMaps& maps, BoxWalk walk,
                                                   const TileRecord& tile, int rows_per_box, int num_blocks,
                                                   std::uint32_t& blocks) {
  const int lane = threadIdx.x % 32, first_row = lane * rows_per_box;
#pragma unroll 1
  for (const std::uint32_t end = blocks + num_blocks; blocks != end; ++blocks) {
    const int stage = blocks % kStages, page = walk.page();
    if (blocks + 1 != end) walk.next_block();
#pragma unroll 1
    for (int position = 0; position < kSlices; ++position) {
      const int slice = slice_in_order(position);
      smem.k_released[stage][slice].wait(((blocks / kStages) & 1) ^ 1);
      if (lane == 0) smem.k_landed[stage][slice].arrive_expecting(kSliceBytes);
      __syncwarp();
      if (first_row < kBlockTokens) load_slice(smem, maps, stage, slice, first_row, 0, tile.kv_head, page);
    }
  }
}

inline __device__ void run_loader(SharedMemory& smem, const TensorMaps& maps, const DecodeParams& params) {
  const int lane = threadIdx.x % 32;
  if (lane == 0) {
    for (const CUtensorMap* map : {&maps.q_latent, &maps.q_rope, &maps.k_latent, &maps.k_rope}) ptx::prefetch_map(*map);
  }
  TileReader tiles;
  std::uint32_t blocks = 0, query_tiles = 0;
  while (const TileRecord* tile = tiles.next(smem)) {
    const int num_blocks = tile->block_end - tile->block_begin;
    if (num_blocks > 0) {
      const BoxWalk walk(params, *tile, lane);
      if (params.q_period > 0) {
        smem.q_released.wait((query_tiles++ & 1) ^ 1);
        if (lane == 0) load_queries(smem, maps, params, *tile);
      }
      if (params.page_size < kBlockTokens) {
        load_pieced_blocks(smem, maps, walk, *tile, params.page_size, num_blocks, blocks);
      } else if (lane == 0) {
        load_whole_blocks(smem, maps, walk, tile->kv_head, num_blocks, blocks);
      }
    }
    tiles.finish(smem);
  }
}

}  // namespace flash_mla::sm90
