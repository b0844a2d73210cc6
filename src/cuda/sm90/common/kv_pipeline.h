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

// Whole blocks, one after the other in equal stages.
template <int Stages>
struct KvPipeline {
  static constexpr int kStages = Stages;  // token blocks in shared memory

  // Where the loader puts its next block.
  class Cursor {
   public:
    [[nodiscard]] __device__ __forceinline__ std::uint32_t block() const { return block_; }
    // Whether the block's place has not been used before.
    [[nodiscard]] __device__ __forceinline__ bool fresh() const { return block_ < Stages; }
    __device__ __forceinline__ void next_block() { ++block_; }

   private:
    std::uint32_t block_ = 0;
  };

  __device__ __forceinline__ Slice& place(Cursor at, int slice) { return k[at.block() % Stages][slice]; }
  __device__ __forceinline__ ptx::Barrier& landed(Cursor at, int strip) { return k_landed[at.block() % Stages][strip]; }
  __device__ __forceinline__ void await_release(Cursor at, int strip) {
    k_released[at.block() % Stages][strip].wait(((at.block() / Stages) & 1) ^ 1);
  }
  __device__ __forceinline__ void await_first_block(int strip) { k_landed[0][strip].wait(0); }

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
template <class Kv>
__device__ __forceinline__ void load_box(Kv& kv, const TensorMaps& maps, const typename Kv::Cursor& at, int slice,
                                         int first_row, int row, int kv_head, int page, ptx::L2Priority priority) {
  const bool rope = slice == kLatentSlices;
  ptx::tma_load(kv.place(at, slice).bytes + first_row * tile::kRowBytes, rope ? maps.k_rope : maps.k_latent,
                {0, row, rope ? 0 : slice, kv_head, page}, kv.landed(at, slice / kStripSlices), priority);
}

// The second block is asked for as the first one arrives. All multiprocessors begin at the same time: if each asked for
// all that it has room for, the first blocks would come as late as the second ones, and then nothing would be under
// way.
template <class Kv>
__device__ __forceinline__ void wait_for_first_block(Kv& kv, int strip, const typename Kv::Cursor& at) {
  if (at.block() == 1) kv.await_first_block(strip);
}

// Blocks of whole strips: a single thread does all. StripOrder::at(i) is the i-th strip that is loaded (and released).
// Unrolled, for every strip is waited for; but code that runs once arrives from memory as late as data, so the blocks
// that fill the empty places are loaded by a loop.
template <class StripOrder, bool Unrolled, class Kv>
__device__ __forceinline__ void load_whole_block(Kv& kv, const TensorMaps& maps, int row, int kv_head, int page,
                                                 ptx::L2Priority priority, const typename Kv::Cursor& at) {
#pragma unroll(Unrolled ? kStrips : 1)
  for (int position = 0; position < kStrips; ++position) {
    const int strip = StripOrder::at(position);
    if (Unrolled) kv.await_release(at, strip);
    wait_for_first_block(kv, strip, at);
    kv.landed(at, strip).arrive_expecting(slices_of(strip) * kSliceBytes);
    load_box(kv, maps, at, first_slice_of(strip), 0, row, kv_head, page, priority);
  }
}

// `at_once`: DecodeParams::blocks_at_once.
template <class StripOrder, class Kv>
__device__ __forceinline__ void load_whole_blocks(Kv& kv, const TensorMaps& maps, BoxWalk walk, const TileRecord& tile,
                                                  bool at_once, ptx::L2Priority priority, typename Kv::Cursor& at) {
  const int kv_head = tile.kv_head;
#pragma unroll 1
  for (int block = tile.block_begin, end = tile.block_end; block < end; ++block, at.next_block()) {
    const int page = walk.page(), row = walk.row() - walk.rows_before(block);
    if (block + 1 < end) walk.next_block();
    if (at.fresh()) {
      load_whole_block<StripOrder, false>(kv, maps, row, kv_head, page, priority, at);
    } else {
#pragma unroll 1
      for (int strip = 0; at_once && strip < kStrips; ++strip) kv.await_release(at, strip);
      load_whole_block<StripOrder, true>(kv, maps, row, kv_head, page, priority, at);
    }
  }
}

// Blocks of several boxes: one a lane. Pages are shorter than a block, so every box begins its page.
template <class StripOrder, class Kv>
__device__ __forceinline__ void load_pieced_blocks(Kv& kv, const TensorMaps& maps, BoxWalk walk, int kv_head,
                                                   int rows_per_box, int num_blocks, ptx::L2Priority priority,
                                                   typename Kv::Cursor& at) {
  const int lane = threadIdx.x % 32, first_row = lane * rows_per_box;
#pragma unroll 1
  for (int left = num_blocks; left > 0; --left, at.next_block()) {
    const int page = walk.page();
    if (left > 1) walk.next_block();
#pragma unroll 1
    for (int position = 0; position < kStrips; ++position) {
      const int strip = StripOrder::at(position);
      kv.await_release(at, strip);
      wait_for_first_block(kv, strip, at);
      if (lane == 0) kv.landed(at, strip).arrive_expecting(slices_of(strip) * kSliceBytes);
      __syncwarp();
      if (first_row >= kBlockTokens) continue;
#pragma unroll 1
      for (int slice = first_slice_of(strip); slice < first_slice_of(strip) + slices_of(strip); ++slice) {
        load_box(kv, maps, at, slice, first_row, 0, kv_head, page, priority);
      }
    }
  }
}

// The tile's blocks. All lanes of a warp call; `walk` is the lane's. Pieced blocks are never asked for at once.
template <class StripOrder, class Kv>
__device__ __forceinline__ void load_blocks(Kv& kv, const TensorMaps& maps, const BoxWalk& walk, const TileRecord& tile,
                                            int page_size, bool at_once, typename Kv::Cursor& at,
                                            ptx::L2Priority priority) {
  if (page_size < kBlockTokens) {
    load_pieced_blocks<StripOrder>(kv, maps, walk, tile.kv_head, page_size, tile.block_end - tile.block_begin, priority,
                                   at);
  } else if (threadIdx.x % 32 == 0) {
    load_whole_blocks<StripOrder>(kv, maps, walk, tile, at_once, priority, at);
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

// The loader: one warp, for all tiles of its thread block. begin_tile(tile, cursor) is called before a tile's blocks
// are asked for.
template <class StripOrder, class Kv, class BeginTile>
__device__ __forceinline__ void run_loader(Kv& kv, TileRing& ring, const TensorMaps& maps, const DecodeParams& params,
                                           ptx::L2Priority priority, BeginTile begin_tile) {
  TileReader tiles;
  typename Kv::Cursor at;
  while (const TileRecord* tile = tiles.next(ring)) {
    if (tile->block_begin < tile->block_end) {
      BoxWalk walk(params, *tile, threadIdx.x % 32);
      walk.prefetch_entry();
      ptx::wait_for_prerequisites();  // of the first tile all but the page is known by then
      walk.look_up();
      begin_tile(*tile, at);
      load_blocks<StripOrder>(kv, maps, walk, *tile, params.page_size, params.blocks_at_once, at, priority);
    }
    tiles.finish(ring);
  }
}

// By a warpgroup: zeroes rows of V past the request's last token, which may hold anything, and 0 * NaN is NaN. The
// tensor cores see it after a fence and a meeting of the warpgroup. (Not where a page is a block: rows_before_page.)
inline __device__ void zero_rows(Slice* slices, int num_slices, int first_row) {
  const int chunks = (kBlockTokens - first_row) * (tile::kRowBytes / 16);
#pragma unroll 1
  for (int slice = 0; slice < num_slices; ++slice) {
    auto* rows = reinterpret_cast<uint4*>(slices[slice].bytes + first_row * tile::kRowBytes);
#pragma unroll 1
    for (int i = threadIdx.x % kWarpgroupThreads; i < chunks; i += kWarpgroupThreads) rows[i] = uint4{0, 0, 0, 0};
  }
}

}  // namespace flash_mla::sm90
