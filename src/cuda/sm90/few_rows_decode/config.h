// The shape of the decode kernel for few rows: a thread block has 16 or 32 packed rows of queries and walks over blocks
// of 64 tokens; one warpgroup, the group, does the arithmetic.
//
// Tokens are the rows of the tensor cores' tiles, so that no arithmetic is done for rows that do not exist:
//   S^T [64 tokens x Rows] = K Q^T          O^T [512 x Rows] = V^T P^T
#pragma once

#include "cuda/ptx/tma.h"
#include "cuda/sm90/common/gatekeeper.h"
#include "cuda/sm90/common/geometry.h"

namespace flash_mla::sm90::few_rows {

inline constexpr int kStages = 2;  // token blocks in shared memory
inline constexpr int kResultRowBytes = kLatentDim * 2;
inline constexpr int kResultPitchBytes = kResultRowBytes + 16;  // so that eight rows meet all banks

template <int Rows>
inline constexpr int kQuerySliceBytes = Rows* tile::kRowBytes;
template <int Rows>
inline constexpr int kThreadColumns = Rows / 4;  // rows of queries that a thread has scores of
template <int Rows>
inline constexpr int kTileRegisters = Rows / 2;  // accumulators a thread of a tile of 64 x Rows

// Warps behind the group's.
inline constexpr int kLoaderWarp = 4;
inline constexpr int kQueryLoaderWarp = 5;
inline constexpr int kDealerWarp = 6;
inline constexpr int kGatekeeperWarp = 7;
inline constexpr int kWarps = 8;  // all merge cut units once they have done what else they do
inline constexpr int kThreads = 32 * kWarps;

// Named barriers.
inline constexpr int kSetUpBarrier = 1;     // all threads
inline constexpr int kGroupBarrier = 2;     // the group
inline constexpr int kMergeBarrier = 3;     // all threads
inline constexpr int kPartialsWritten = 4;  // the group, gatekeeper

static_assert(kMergingWarps == kWarps);
using Partials = PartialsBarrier<kPartialsWritten, kWarpgroupWarps + 1>;

// What a warp of the group has of a row of results is an item.
inline constexpr int kRowItems = kWarpgroupWarps;
inline constexpr int kItemColumns = kLatentDim / kRowItems;

// Blocks are read once a step: they leave the L2 cache before partials do, which are read soon.
inline constexpr ptx::L2Priority kPriority = ptx::L2Priority::evict_first;

// The order in which strips are loaded and multiplied: that in which they are released.
struct StripOrder {
  __host__ __device__ static constexpr int at(int position) { return position == 0 ? kRopeStrip : position - 1; }
};

}  // namespace flash_mla::sm90::few_rows
