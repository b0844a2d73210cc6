// The shape of the decode kernel for few rows. A group, one warpgroup, holds 16 packed rows of queries; a thread block
// has one or two groups, which share the blocks of 64 tokens that it walks over.
//
// Tokens are the rows of the tensor cores' tiles, so that no arithmetic is done for rows that do not exist:
//   S^T [64 tokens x 16] = K Q^T          O^T [512 x 16] = V^T P^T
#pragma once

#include "cuda/sm90/common/gatekeeper.h"
#include "cuda/sm90/common/geometry.h"

namespace flash_mla::sm90::few_rows {

inline constexpr int kGroupRows = 16;
inline constexpr int kGroupSliceBytes = kGroupRows * tile::kRowBytes;
inline constexpr int kResultRowBytes = kLatentDim * 2;
inline constexpr int kResultPitchBytes = kResultRowBytes + 16;  // so that eight rows meet all banks
inline constexpr int kThreadColumns = kGroupRows / 4;           // rows of queries that a thread has scores of

// The first ones merge cut units once they have done what else they do; with one group, a warp has nothing else to do.
inline constexpr int kMergingWarps = 8;

template <int Groups>
struct Config {
  static constexpr int kStages = 2;  // token blocks in shared memory
  static constexpr int kConsumerWarps = Groups * kWarpgroupWarps;
  static constexpr int kLoaderWarp = kConsumerWarps;
  static constexpr int kQueryLoaderWarp = kConsumerWarps + 1;
  static constexpr int kDealerWarp = kConsumerWarps + 2;
  static constexpr int kGatekeeperWarp = Groups == 1 ? kMergingWarps : kConsumerWarps + 3;
  static constexpr int kThreads = 32 * (kGatekeeperWarp + 1);
};

// Named barriers: of all threads; of the groups; of groups and gatekeeper; of those who merge.
inline constexpr int kSetUpBarrier = 1;
inline constexpr int kGroupBarrier = 2;  // + group
inline constexpr int kPartialsWritten = 4;
inline constexpr int kGatesAnswered = 5;
inline constexpr int kMergeBarrier = 6;

template <int Groups>
using Gates = GateBarriers<kPartialsWritten, Config<Groups>::kConsumerWarps, kGatesAnswered, kMergingWarps>;

// The order in which slices are loaded and multiplied: that in which they are released.
struct SliceOrder {
  __host__ __device__ static constexpr int at(int position) { return position == 0 ? kLatentSlices : position - 1; }
};

}  // namespace flash_mla::sm90::few_rows
