// Prefix sums over one value per thread of a thread block of whole warps, at most 32.
// Every thread must take part in every call; `scratch` is shared memory that a call has for itself while it runs.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/host_device.h"

namespace flash_mla::cuda {

inline constexpr int kWarpLanes = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

// A struct travels between lanes as 32-bit words.
template <class T, class Shuffle>
__device__ __forceinline__ T shuffle_words(const T& value, Shuffle shuffle) {
  static_assert(sizeof(T) % 4 == 0);
  std::uint32_t words[sizeof(T) / 4];
  std::memcpy(words, &value, sizeof value);
#pragma unroll
  for (std::uint32_t& word : words) word = shuffle(word);
  T result;
  std::memcpy(&result, words, sizeof result);
  return result;
}

template <class T>
struct BlockScratch {
  T of_warp[kWarpLanes];
};

// The sum over the warp's lanes up to this one.
template <class T>
__device__ __forceinline__ T warp_scan(T value) {
  const int lane = threadIdx.x % kWarpLanes;
#pragma unroll
  for (int distance = 1; distance < kWarpLanes; distance *= 2) {
    const T lower = __shfl_up_sync(kAllLanes, value, distance);
    if (lane >= distance) value += lower;
  }
  return value;
}

// The sum over the warp's lanes, of numbers >= 0: in three parts whose sums have 32 bits.
__device__ __forceinline__ std::int64_t warp_sum(std::int64_t value) {
  constexpr int kBits = 26;
  constexpr std::uint32_t kMask = (1u << kBits) - 1;
  const auto sum = [](std::int64_t part) {
    return std::uint64_t{__reduce_add_sync(kAllLanes, static_cast<std::uint32_t>(part))};
  };
  return static_cast<std::int64_t>((sum(value >> 2 * kBits) << 2 * kBits) + (sum(value >> kBits & kMask) << kBits) +
                                   sum(value & kMask));
}

template <class T>
struct Scanned {
  T before;  // sum over the threads before this one
  T total;
};

template <class T>
__device__ __forceinline__ Scanned<T> block_scan(T value, BlockScratch<T>& scratch) {
  const int lane = threadIdx.x % kWarpLanes, warp = threadIdx.x / kWarpLanes, warps = blockDim.x / kWarpLanes;
  const T inclusive = warp_scan(value);
  if (lane == kWarpLanes - 1) scratch.of_warp[warp] = inclusive;
  __syncthreads();
  const T warp_sums = warp_scan(lane < warps ? scratch.of_warp[lane] : T{});
  const T lower_warps = __shfl_sync(kAllLanes, warp_sums, warp > 0 ? warp - 1 : 0);
  const T total = __shfl_sync(kAllLanes, warp_sums, kWarpLanes - 1);
  __syncthreads();  // the next call may write scratch
  return {(warp > 0 ? lower_warps : T{}) + inclusive - value, total};
}

}  // namespace flash_mla::cuda
