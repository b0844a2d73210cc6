// The tiles of a thread block, from the dealer to the roles that work on them. The dealer, one thread, walks over the
// part's tiles and hands out the rows that this thread block has.
//
//   dealer  announces tile_dealt; waits for tile_finished
//   reader  waits for tile_dealt; announces tile_finished
#pragma once

#include <new>

#include "cuda/ptx/mbarrier.h"
#include "cuda/sm90/common/params.h"
#include "schedule/tile_cursor.h"

namespace flash_mla::sm90 {

inline constexpr int kTileSlots = 4;  // tiles that the dealer may be ahead of the slowest role

struct TileRecord {
  std::int32_t request;  // -1: no more tiles
  std::int32_t kv_head;
  std::int32_t first_row;  // packed row
  std::int32_t num_rows;   // >= 1
  std::int32_t block_begin, block_end;
  std::int32_t slot;         // -1: write out and lse; else the partial
  std::int32_t row_in_unit;  // of the first row
  std::int32_t length;       // tokens of the request
  std::int32_t queries;      // query tokens of the request
  std::int32_t first_query;  // ragged: the request's first query token; 0 otherwise
};

struct DealerState {
  Tile tile;  // the next one, if there is `more`
  bool more;
  TileCursor* cursor;
  alignas(TileCursor) unsigned char cursor_bytes[sizeof(TileCursor)];
};

struct TileRing {
  TileRecord tiles[kTileSlots];
  DealerState dealer;
  ptx::Barrier tile_dealt[kTileSlots];     // dealer -> all
  ptx::Barrier tile_finished[kTileSlots];  // all -> dealer
};

// By one thread. `readers`: warps that call TileReader::finish.
inline __device__ void init_ring(TileRing& ring, int readers) {
#pragma unroll
  for (ptx::Barrier& dealt : ring.tile_dealt) dealt.init(1);
#pragma unroll
  for (ptx::Barrier& finished : ring.tile_finished) finished.init(readers);
}

inline __device__ void write_record(TileRecord& record, const Work& work, const Tile& tile, int row_in_unit,
                                    int rows_per_thread_block) {
  record.request = tile.request;
  record.kv_head = tile.kv_head;
  record.first_row = tile.first_row + row_in_unit;
  record.num_rows = min_of(tile.num_rows - row_in_unit, rows_per_thread_block);
  record.block_begin = tile.block_begin;
  record.block_end = tile.block_end;
  record.slot = tile.slot;
  record.row_in_unit = row_in_unit;
  record.length = work.length(tile.request);
  record.queries = work.queries(tile.request);
  record.first_query = work.first_query(tile.request);
}

// The next tile of which this thread block has rows.
inline __device__ void find_next_tile(DealerState& dealer, int row_in_unit) {
  do dealer.more = dealer.cursor->next(&dealer.tile);
  while (dealer.more && dealer.tile.num_rows <= row_in_unit);
}

// Finds the first tile; the ring's barriers need not be there yet. The dealer's state lives in shared memory, for its
// warp may have few registers.
inline __device__ void find_first_tile(TileRing& ring, const DecodeParams& params, int rows_per_thread_block) {
  ring.dealer.cursor =
      new (ring.dealer.cursor_bytes) TileCursor(params.work, *params.header, params.parts, blockIdx.x / params.cohort);
  find_next_tile(ring.dealer, static_cast<int>(blockIdx.x % params.cohort) * rows_per_thread_block);
}

// Hands out the tiles, after find_first_tile. once_dealt(tile) is called with the first one.
template <class OnceDealt>
__device__ __forceinline__ void deal_tiles(TileRing& ring, const DecodeParams& params, int rows_per_thread_block,
                                           OnceDealt once_dealt) {
  DealerState& dealer = ring.dealer;
  const int row_in_unit = static_cast<int>(blockIdx.x % params.cohort) * rows_per_thread_block;
#pragma unroll 1
  for (std::uint32_t dealt = 0;; ++dealt) {
    const std::uint32_t slot = dealt % kTileSlots;
    ring.tile_finished[slot].wait(((dealt / kTileSlots) & 1) ^ 1);
    if (dealer.more) {
      write_record(ring.tiles[slot], params.work, dealer.tile, row_in_unit, rows_per_thread_block);
    } else {
      ring.tiles[slot].request = -1;
    }
    ring.tile_dealt[slot].arrive();
    if (!dealer.more) return;
    if (dealt == 0) once_dealt(ring.tiles[0]);
    find_next_tile(dealer, row_in_unit);
  }
}

// A role's view of the tiles. All lanes of a warp call.
class TileReader {
 public:
  // The next tile, or null; stays valid until finish().
  __device__ __forceinline__ const TileRecord* next(TileRing& ring) {
    const std::uint32_t slot = taken_ % kTileSlots;
    ring.tile_dealt[slot].wait((taken_ / kTileSlots) & 1);
    return ring.tiles[slot].request < 0 ? nullptr : &ring.tiles[slot];
  }
  __device__ __forceinline__ void finish(TileRing& ring) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ring.tile_finished[taken_ % kTileSlots].arrive();
    ++taken_;
  }

 private:
  std::uint32_t taken_ = 0;
};

}  // namespace flash_mla::sm90
