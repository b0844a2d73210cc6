// The shape of the dense decode kernel: one thread block holds 64 packed rows of queries and walks over blocks of 64
// tokens. Columns are handled in slices of 64: 0-7 latent (and value), 8 rope.
#pragma once

#include "cuda/sm90/common/gatekeeper.h"
#include "cuda/sm90/common/geometry.h"
#include "cuda/tile/accumulator.h"

namespace flash_mla::sm90 {

inline constexpr int kRows = tile::kTileRows;
inline constexpr int kSideSlices = 4;  // of the values that role left or right accumulates

// Four warpgroups. Registers a thread add up to 4 * 128, what the launch hands out.
inline constexpr int kThreads = 4 * kWarpgroupThreads;
inline constexpr int kLaunchRegisters = 128;
inline constexpr int kScoresRegisters = 112;
inline constexpr int kValuesRegisters = 176;
inline constexpr int kLoadRegisters = 48;
static_assert(kScoresRegisters + 2 * kValuesRegisters + kLoadRegisters == 4 * kLaunchRegisters);

enum class Side : int { left = 0, right = 1 };  // value columns 0-255, 256-511

// Warps of the load warpgroup, the fourth.
inline constexpr int kLoaderWarp = 12;
inline constexpr int kQueryLoaderWarp = 13;
inline constexpr int kDealerWarp = 14;

inline constexpr int kGatekeeperWarp = 15;

// Named barriers.
inline constexpr int kScoresBarrier = 1;
inline constexpr int kValuesBarrier = 2;    // + side
inline constexpr int kSetUpBarrier = 4;     // all threads
inline constexpr int kPartialsWritten = 5;  // scores, left, right, gatekeeper
inline constexpr int kMergeBarrier = 6;     // left, right
static_assert(kMergingWarps == 2 * kWarpgroupWarps);
using Partials = PartialsBarrier<kPartialsWritten, 3 * kWarpgroupWarps + 1>;

// The order in which strips are loaded and multiplied: that in which they are released.
struct StripOrder {
  __host__ __device__ static constexpr int at(int position) {
    return position < 2 ? position : position == 2 ? kRopeStrip : position - 1;
  }
};

// Slices of Q that the scores role keeps in registers, so that they need no place in shared memory while a tile is
// worked on: that role is bound by shared-memory traffic, of which Q is a third (2 of 9 measured 2 % faster than none;
// more would spill).
inline constexpr int kQuerySlicesInRegisters = 2;
inline constexpr int kQuerySlicesInMemory = kSlices - kQuerySlicesInRegisters;

}  // namespace flash_mla::sm90
