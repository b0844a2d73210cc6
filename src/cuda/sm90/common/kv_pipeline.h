// Step 3 of docs/algorithm.md [loader]: blocks of K (the first 8 slices are V as well) on their way through shared
// memory, strip by strip.
//
//   the loader waits for k_released; the copy engine announces k_landed
//
// A strip of a block is one box of the copy engine, or several of a slice each where pages have 16 or 32 tokens: then
// lane i looks up and loads boxes of page i.
#pragma once

#include "cuda/ptx/dependent_launch.h"
#include "cuda/ptx/mbarrier.h"
#include "cuda/ptx/tma.h"
#include "cuda/sm90/common/box_walk.h"
#include "cuda/sm90/common/geometry.h"

namespace flash_mla::sm90 {

template <int Stages>
struct KvPipeline {
  static constexpr int kStages = Stages;  // token blocks in shared memory

  Slice k[Stages][kSlices];
  ptx::Barrier k_landed[Stages][kStrips];    // copy engine -> readers
  ptx::Barrier k_released[Stages][kStrips];  // readers -> loader
};

// By one thread. Each strip is released by `releasing_warps`.
template <int Stages>
__device__ __forceinline__ void init_pipeline(KvPipeline<Stages>& kv, int releasing_warps) {
#pragma unroll
  for (int stage = 0; stage < Stages; ++stage) {
#pragma unroll
    for (int strip = 0; strip < kStrips; ++strip) {
      kv.k_landed[stage][strip].init(1);
      kv.k_released[stage][strip].init(releasing_warps);
    }
  }
}

// Loads a lane's box, which begins with `slice` and comes to lie from `first_row` on.
template <int Stages>
__device__ __forceinline__ void load_box(KvPipeline<Stages>& kv, const TensorMaps& maps, int stage, int slice,
                                         int first_row, int row, int kv_head, int page, ptx::L2Priority priority) {
  const bool rope = slice == kLatentSlices;
  ptx::tma_load(kv.k[stage][slice].bytes + first_row * tile::kRowBytes, rope ? maps.k_rope : maps.k_latent,
                {0, row, rope ? 0 : slice, kv_head, page}, kv.k_landed[stage][slice / kStripSlices], priority);
}

// The second block is asked for as the first one arrives. All multiprocessors begin at the same time: if each asked for
// all that it has room for, the first blocks would come as late as the second ones, and then nothing would be under
// way.
template <int Stages>
__device__ __forceinline__ void wait_for_first_block(KvPipeline<Stages>& kv, int strip, std::uint32_t block) {
  if (block == 1) kv.k_landed[0][strip].wait(0);
}

// Blocks of whole strips: a single thread does all. StripOrder::at(i) is the i-th strip that is loaded (and released).
// Unrolled, for every strip is waited for; but code that runs once arrives from memory as late as data, so the blocks
// that fill the empty stages are loaded by a loop.
template <class StripOrder, bool Unrolled, int Stages>
__device__ __forceinline__ void load_whole_block(KvPipeline<Stages>& kv, const TensorMaps& maps, int row, int kv_head,
                                                 int page, ptx::L2Priority priority, std::uint32_t block) {
  const int stage = block % Stages;
#pragma unroll(Unrolled ? kStrips : 1)
  for (int position = 0; position < kStrips; ++position) {
    const int strip = StripOrder::at(position);
    if (Unrolled) kv.k_released[stage][strip].wait(((block / Stages) & 1) ^ 1);
    if (!Unrolled) wait_for_first_block(kv, strip, block);
    kv.k_landed[stage][strip].arrive_expecting(slices_of(strip) * kSliceBytes);
    load_box(kv, maps, stage, first_slice_of(strip), 0, row, kv_head, page, priority);
  }
}

// `at_once`: DecodeParams::blocks_at_once.
template <class StripOrder, int Stages>
__device__ __forceinline__ void load_whole_blocks(KvPipeline<Stages>& kv, const TensorMaps& maps, BoxWalk walk,
                                                  const TileRecord& tile, bool at_once, ptx::L2Priority priority,
                                                  std::uint32_t& blocks) {
  const int kv_head = tile.kv_head;
#pragma unroll 1
  for (int block = tile.block_begin, end = tile.block_end; block < end; ++block, ++blocks) {
    const int page = walk.page(), row = walk.row() - walk.rows_before(block);
    if (block + 1 < end) walk.next_block();
    if (blocks < Stages) {
      load_whole_block<StripOrder, false>(kv, maps, row, kv_head, page, priority, blocks);
    } else {
#pragma unroll 1
      for (int strip = 0; at_once && strip < kStrips; ++strip) {
        kv.k_released[blocks % Stages][strip].wait(((blocks / Stages) & 1) ^ 1);
      }
      load_whole_block<StripOrder, true>(kv, maps, row, kv_head, page, priority, blocks);
    }
  }
}

// Blocks of several boxes: one a lane. Pages are shorter than a block, so every box begins its page.
template <class StripOrder, int Stages>
__device__ __forceinline__ void load_pieced_blocks(KvPipeline<Stages>& kv, const TensorMaps& maps, BoxWalk walk,
                                                   int kv_head, int rows_per_box, int num_blocks,
                                                   ptx::L2Priority priority, std::uint32_t& blocks) {
  const int lane = threadIdx.x % 32, first_row = lane * rows_per_box;
#pragma unroll 1
  for (const std::uint32_t end = blocks + num_blocks; blocks != end; ++blocks) {
    const int stage = blocks % Stages, page = walk.page();
    if (blocks + 1 != end) walk.next_block();
#pragma unroll 1
    for (int position = 0; position < kStrips; ++position) {
      const int strip = StripOrder::at(position);
      kv.k_released[stage][strip].wait(((blocks / Stages) & 1) ^ 1);
      wait_for_first_block(kv, strip, blocks);
      if (lane == 0) kv.k_landed[stage][strip].arrive_expecting(slices_of(strip) * kSliceBytes);
      __syncwarp();
      if (first_row >= kBlockTokens) continue;
#pragma unroll 1
      for (int slice = first_slice_of(strip); slice < first_slice_of(strip) + slices_of(strip); ++slice) {
        load_box(kv, maps, stage, slice, first_row, 0, kv_head, page, priority);
      }
    }
  }
}

// The tile's blocks. All lanes of a warp call; `walk` is the lane's. Pieced blocks are never asked for at once.
template <class StripOrder, int Stages>
__device__ __forceinline__ void load_blocks(KvPipeline<Stages>& kv, const TensorMaps& maps, const BoxWalk& walk,
                                            const TileRecord& tile, int page_size, bool at_once, std::uint32_t& blocks,
                                            ptx::L2Priority priority) {
  if (page_size < kBlockTokens) {
    load_pieced_blocks<StripOrder>(kv, maps, walk, tile.kv_head, page_size, tile.block_end - tile.block_begin, priority,
                                   blocks);
  } else if (threadIdx.x % 32 == 0) {
    load_whole_blocks<StripOrder>(kv, maps, walk, tile, at_once, priority, blocks);
  }
}

// How many of a tile's blocks are brought to the L2 cache early: of a long one as many as there is room for, of a short
// one the first. (The loads of others would wait behind that for longer than they gain.)
template <int Stages>
__device__ __forceinline__ int early_blocks(int blocks) {
  constexpr int kShortBlocks = 2, kLongBlocks = 4;
  return blocks > kLongBlocks ? Stages : blocks <= kShortBlocks ? min_of(blocks, 1) : 0;
}

// By one thread: asks for a tile's first blocks to be brought to the L2 cache while the kernels before this one still
// run: near their ends memory has less to do. Only a hint: what those kernels write to the blocks is seen in L2, and
// should they change the block table, a page was brought in vain. Its entries are not read through L1, which would keep
// them.
template <int Stages>
__device__ __forceinline__ void prefetch_tile(const TensorMaps& maps, const DecodeParams& params,
                                              const TileRecord& tile, ptx::L2Priority priority) {
  if (params.page_size < kBlockTokens) return;
  const std::int32_t* const table = params.block_table + tile.request * params.block_table_stride;
#pragma unroll 1
  for (int block = tile.block_begin, end = block + early_blocks<Stages>(tile.block_end - block); block < end; ++block) {
    const int index = block / (params.page_size / kBlockTokens);
    if (index >= params.block_table_columns) return;
    const int page = __ldcg(table + index), row = block * kBlockTokens - index * params.page_size;
#pragma unroll 1
    for (int strip = 0; strip < kStrips; ++strip) {
      const bool rope = strip == kRopeStrip;
      ptx::tma_prefetch(rope ? maps.k_rope : maps.k_latent,
                        {0, row, rope ? 0 : first_slice_of(strip), tile.kv_head, page}, priority);
    }
  }
}

// The loader: one warp, for all tiles of its thread block.
template <class StripOrder, int Stages>
__device__ __forceinline__ void run_loader(KvPipeline<Stages>& kv, TileRing& ring, const TensorMaps& maps,
                                           const DecodeParams& params, ptx::L2Priority priority, bool at_once) {
  TileReader tiles;
  std::uint32_t blocks = 0;
  while (const TileRecord* tile = tiles.next(ring)) {
    if (tile->block_begin < tile->block_end) {
      BoxWalk walk(params, *tile, threadIdx.x % 32);
      walk.prefetch_entry();
      ptx::wait_for_prerequisites();  // of the first tile all but the page is known by then
      walk.look_up();
      load_blocks<StripOrder>(kv, maps, walk, *tile, params.page_size, at_once, blocks, priority);
    }
    tiles.finish(ring);
  }
}

// By a warpgroup: zeroes rows of V past the request's last token, which may hold anything, and 0 * NaN is NaN. The
// tensor cores see it after a fence and a meeting of the warpgroup. (Not where a page is a block: rows_before_page.)
template <int Stages>
__device__ __forceinline__ void zero_rows(KvPipeline<Stages>& kv, int stage, int first_slice, int num_slices,
                                          int first_row) {
  const int chunks = (kBlockTokens - first_row) * (tile::kRowBytes / 16);
#pragma unroll 1
  for (int slice = 0; slice < num_slices; ++slice) {
    auto* rows = reinterpret_cast<uint4*>(kv.k[stage][first_slice + slice].bytes + first_row * tile::kRowBytes);
#pragma unroll 1
    for (int i = threadIdx.x % kWarpgroupThreads; i < chunks; i += kWarpgroupThreads) rows[i] = uint4{0, 0, 0, 0};
  }
}

}  // namespace flash_mla::sm90
