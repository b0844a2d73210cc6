// The dealer: one thread walks over the part's tiles and hands the rows of this thread block to the other roles.
//
//   announces tile_dealt; waits for tile_finished
#pragma once

#include <new>

#include "cuda/sm90/dense_decode/params.h"
#include "cuda/sm90/dense_decode/smem.h"

namespace flash_mla::sm90 {

inline __device__ void write_record(TileRecord& record, const Work& work, const Tile& tile, int row_in_unit) {
  record.request = tile.request;
  record.kv_head = tile.kv_head;
  record.first_row = tile.first_row + row_in_unit;
  record.num_rows = min_of(tile.num_rows - row_in_unit, kRows);
  record.block_begin = tile.block_begin;
  record.block_end = tile.block_end;
  record.slot = tile.slot;
  record.row_in_unit = row_in_unit;
  record.length = work.length(tile.request);
  record.queries = work.queries(tile.request);
  record.first_query = work.first_query(tile.request);
}

// The dealer's state lives in shared memory, for its warpgroup has few registers.
inline __device__ void deal_tiles(SharedMemory& smem, const DecodeParams& params) {
  DealerState& dealer = smem.dealer;
  TileCursor& cursor =
      *new (dealer.cursor) TileCursor(params.work, *params.header, params.parts, blockIdx.x / params.cohort);
  const int row_in_unit = static_cast<int>(blockIdx.x % params.cohort) * kRows;
  for (std::uint32_t dealt = 0;; ++dealt) {
    bool more;
    do more = cursor.next(&dealer.tile);
    while (more && dealer.tile.num_rows <= row_in_unit);
    const std::uint32_t slot = dealt % kTileSlots;
    smem.tile_finished[slot].wait(((dealt / kTileSlots) & 1) ^ 1);
    if (more) {
      write_record(smem.tiles[slot], params.work, dealer.tile, row_in_unit);
    } else {
      smem.tiles[slot].request = -1;
    }
    smem.tile_dealt[slot].arrive();
    if (!more) return;
  }
}

// A role's view of the tiles. All lanes of a warp call.
class TileReader {
 public:
  // The next tile, or null; stays valid until finish().
  __device__ __forceinline__ const TileRecord* next(SharedMemory& smem) {
    const std::uint32_t slot = taken_ % kTileSlots;
    smem.tile_dealt[slot].wait((taken_ / kTileSlots) & 1);
    return smem.tiles[slot].request < 0 ? nullptr : &smem.tiles[slot];
  }
  __device__ __forceinline__ void finish(SharedMemory& smem) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) smem.tile_finished[taken_ % kTileSlots].arrive();
    ++taken_;
  }

 private:
  std::uint32_t taken_ = 0;
};

}  // namespace flash_mla::sm90
