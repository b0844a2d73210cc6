// Reductions and prefix sums over one value per thread of a thread block of whole warps, at most 32.
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

// op must be commutative with T{} as neutral element. Every thread gets the result.
template <class T, class Op>
__device__ __forceinline__ T block_reduce(T value, Op op, BlockScratch<T>& scratch) {
  const int lane = threadIdx.x % kWarpLanes, warp = threadIdx.x / kWarpLanes, warps = blockDim.x / kWarpLanes;
  const auto reduce_warp = [&](T v) {
    FLASH_MLA_NO_UNROLL for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
      v = op(v, shuffle_words(v, [&](std::uint32_t w) { return __shfl_xor_sync(kAllLanes, w, distance); }));
    }
    return v;
  };
  value = reduce_warp(value);
  if (lane == 0) scratch.of_warp[warp] = value;
  __syncthreads();
  value = reduce_warp(lane < warps ? scratch.of_warp[lane] : T{});
  __syncthreads();  // the next call may write scratch
  return value;
}

template <class T>
struct Scanned {
  T before;  // sum over the threads before this one
  T total;
};

template <class T>
__device__ __forceinline__ Scanned<T> block_scan(T value, BlockScratch<T>& scratch) {
  const int lane = threadIdx.x % kWarpLanes, warp = threadIdx.x / kWarpLanes, warps = blockDim.x / kWarpLanes;
  const auto scan_warp = [&](T v) {  // inclusive
    FLASH_MLA_NO_UNROLL for (int distance = 1; distance < kWarpLanes; distance *= 2) {
      const T lower = __shfl_up_sync(kAllLanes, v, distance);
      if (lane >= distance) v += lower;
    }
    return v;
  };
  const T inclusive = scan_warp(value);
  if (lane == kWarpLanes - 1) scratch.of_warp[warp] = inclusive;
  __syncthreads();
  const T warp_sums = scan_warp(lane < warps ? scratch.of_warp[lane] : T{});
  const T lower_warps = __shfl_sync(kAllLanes, warp_sums, warp > 0 ? warp - 1 : 0);
  const T total = __shfl_sync(kAllLanes, warp_sums, kWarpLanes - 1);
  __syncthreads();  // the next call may write scratch
  return {(warp > 0 ? lower_warps : T{}) + inclusive - value, total};
}

}  // namespace flash_mla::cuda
