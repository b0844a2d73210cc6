// The shared memory of a thread block, and what its barriers say. Barriers are facts in the past tense; phases are
// counted in tiles or blocks since the kernel began.
#pragma once

#include "cuda/ptx/mbarrier.h"
#include "cuda/sm90/dense_decode/config.h"
#include "schedule/tile_cursor.h"

namespace flash_mla::sm90 {

struct alignas(1024) Slice {
  unsigned char bytes[kSliceBytes];  // [64 rows][128 bytes], swizzled
};

// One tile of this thread block, written by the dealer, read by the other roles.
struct TileRecord {
  std::int32_t request;  // -1: no more tiles
  std::int32_t kv_head;
  std::int32_t first_row;  // packed row
  std::int32_t num_rows;   // 1 .. 64
  std::int32_t block_begin, block_end;
  std::int32_t slot;         // -1: write out and lse; else the partial
  std::int32_t row_in_unit;  // of the first row
  std::int32_t length;       // tokens of the request
  std::int32_t queries;      // query tokens of the request
  std::int32_t first_query;  // ragged: the request's first query token; 0 otherwise
};

struct DealerState {
  Tile tile;
  alignas(TileCursor) unsigned char cursor[sizeof(TileCursor)];
};

struct SharedMemory {
  Slice q[kSlices];
  Slice k[kStages][kSlices];  // the first 8 are V as well
  Slice p;                    // exp2 of the scores, rounded

  float rescale[kRows];                           // factor of O before this block's product
  std::uint32_t rescale_wanted[kWarpgroupWarps];  // by any of the warp's 16 rows
  TileRecord tiles[kTileSlots];
  DealerState dealer;

  ptx::Barrier tile_dealt[kTileSlots];        // dealer -> all
  ptx::Barrier tile_finished[kTileSlots];     // all -> dealer
  ptx::Barrier q_landed;                      // copy engine -> scores
  ptx::Barrier q_released;                    // scores -> loader
  ptx::Barrier k_landed[kStages][kSlices];    // copy engine -> scores
  ptx::Barrier k_released[kStages][kSlices];  // left 0-3, right 4-7, scores 8 -> loader
  ptx::Barrier scores_done;                   // scores -> right: the tensor cores have finished Q K^T of a block
  ptx::Barrier p_published;                   // scores -> left, right: p, rescale, rescale_wanted
  ptx::Barrier p_fetched;                     // left, right -> scores
};

inline constexpr int kSharedMemoryLimitBytes = 227 * 1024;
static_assert(sizeof(SharedMemory) <= kSharedMemoryLimitBytes);

// By the lanes of one warp. Arrivals a phase are those of warps.
inline void __device__ init_barriers(SharedMemory& smem, int lane) {
  constexpr int kReaders = 3 * kWarpgroupWarps + 1;  // scores, left, right, loader
  static_assert(kTileSlots <= 32 && kStages * kSlices <= 32);
  if (lane < kTileSlots) {
    smem.tile_dealt[lane].init(1);
    smem.tile_finished[lane].init(kReaders);
  }
  if (lane < kStages * kSlices) {
    smem.k_landed[lane / kSlices][lane % kSlices].init(1);
    smem.k_released[lane / kSlices][lane % kSlices].init(kWarpgroupWarps);
  }
  if (lane > 0) return;
  smem.q_landed.init(1);
  smem.q_released.init(kWarpgroupWarps);
  smem.scores_done.init(kWarpgroupWarps);
  smem.p_published.init(kWarpgroupWarps);
  smem.p_fetched.init(2 * kWarpgroupWarps);
}

}  // namespace flash_mla::sm90
