// Step 3 of docs/algorithm.md [loader]: K of the dense kernel in a ring of strips. Two of Q's slices live in registers,
// and their place in shared memory is a ninth place for strips of K beside the eight of two blocks. So a strip is asked
// for when the one before it in the block is released, that much earlier: at s_q = 1 and 128 heads a step takes 2.5 to
// 3 % less.
//
// The ring has, tile after tile, the first strip of Q and then the latent strips of each block of K. Rope has places of
// its own, for it is released before the rest.
#pragma once

#include "cuda/ptx/mbarrier.h"
#include "cuda/sm90/common/geometry.h"
#include "cuda/sm90/dense_decode/config.h"
#include "cuda/tile/ring_position.h"

namespace flash_mla::sm90 {

inline constexpr int kLatentStrips = kRopeStrip;  // of a block
inline constexpr int kStripPlaces = 9;
inline constexpr int kRopePlaces = 2;
inline constexpr int kPlaces = kStripPlaces + kRopePlaces;
inline constexpr int kStripBytes = kStripSlices * kSliceBytes;
static_assert(kQuerySlicesInRegisters == kStripSlices);

// A role's position in the ring of strips.
using RingPosition = tile::RingPosition<kStripPlaces>;

struct KvRing {
  // Where the loader puts its next block.
  class Cursor {
   public:
    [[nodiscard]] __device__ __forceinline__ std::uint32_t block() const { return block_; }
    // Whether nothing has been put anywhere yet.
    [[nodiscard]] __device__ __forceinline__ bool begins() const { return block_ == 0 && strips_.place() == 0; }
    // Whether none of the block's places has been used before: those of a second block if it is of the first tile.
    [[nodiscard]] __device__ __forceinline__ bool fresh() const {
      return block_ < kRopePlaces && strips_.place() + kLatentStrips <= kStripPlaces;
    }
    __device__ __forceinline__ void next_block() {
      strips_.advance(kLatentStrips);
      ++block_;
    }
    __device__ __forceinline__ void pass_queries() { strips_.advance(1); }
    [[nodiscard]] __device__ __forceinline__ const RingPosition& strips() const { return strips_; }

   private:
    RingPosition strips_;
    std::uint32_t block_ = 0;
  };

  __device__ __forceinline__ Slice& place(const Cursor& at, int slice) {
    return slice == kLatentSlices ? ropes[at.block() % kRopePlaces]
                                  : strips[at.strips().place(slice / kStripSlices)][slice % kStripSlices];
  }
  __device__ __forceinline__ ptx::Barrier& landed(const Cursor& at, int strip) {
    return k_landed[strip == kRopeStrip ? rope_place(at.block()) : at.strips().place(strip)];
  }
  __device__ __forceinline__ void await_release(const Cursor& at, int strip) {
    if (strip == kRopeStrip) {
      k_released[rope_place(at.block())].wait(rope_parity(at.block()) ^ 1);
    } else {
      k_released[at.strips().place(strip)].wait(at.strips().parity(strip) ^ 1);
    }
  }
  // The thread block's first block stands behind the first strip of Q.
  __device__ __forceinline__ void await_first_block(int strip) {
    k_landed[strip == kRopeStrip ? rope_place(0) : 1 + strip].wait(0);
  }

  // Of a block, counted since the kernel began.
  [[nodiscard]] static __device__ __forceinline__ std::uint32_t rope_place(std::uint32_t block) {
    return kStripPlaces + block % kRopePlaces;
  }
  [[nodiscard]] static __device__ __forceinline__ std::uint32_t rope_parity(std::uint32_t block) {
    return block / kRopePlaces & 1;
  }

  Slice strips[kStripPlaces][kStripSlices];
  Slice ropes[kRopePlaces];
  // Of strips, then of ropes.
  ptx::Barrier k_landed[kPlaces];    // copy engine -> scores; Q where it is gathered: loader -> scores, a free place
  ptx::Barrier k_released[kPlaces];  // their last readers -> loader
};

// By one thread. Each strip is released by a warpgroup.
inline __device__ void init_ring_of_strips(KvRing& kv) {
#pragma unroll
  for (ptx::Barrier& landed : kv.k_landed) landed.init(1);
#pragma unroll
  for (ptx::Barrier& released : kv.k_released) released.init(kWarpgroupWarps);
}

}  // namespace flash_mla::sm90
