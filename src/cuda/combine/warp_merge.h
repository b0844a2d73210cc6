// The merge algebra (core/partial.h) of one row by a warp: the lanes share the partials' lse, and each lane sums its
// own columns over the partials in their order.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>

#include "core/int_math.h"
#include "core/partial.h"
#include "cuda/block_scan.h"

namespace flash_mla::cuda {

template <class Op>
__device__ __forceinline__ float reduce_warp(float value, Op op) {
#pragma unroll
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
    value = op(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// lse_of(i), 0 <= i < n, is called by one lane for each i. Every lane gets the result; its bits depend on n and the
// values alone.
template <class LseOf>
__device__ __forceinline__ MergedLse warp_merge_lse(int n, LseOf lse_of) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  float max = kNegativeInfinity;
  for (int i = lane; i < n; i += kWarpLanes) max = fmaxf(max, lse_of(i));
  MergedLse merged{finite_reference(reduce_warp(max, [](float a, float b) { return fmaxf(a, b); })), 0.0f};
  for (int i = lane; i < n; i += kWarpLanes) merged.sum += expf(lse_of(i) - merged.reference);
  merged.sum = reduce_warp(merged.sum, [](float a, float b) { return a + b; });
  return merged;
}

// sum += factor_i * o_i over partials begin .. end - 1 in order, with load(i, vector) one of the lane's vectors of o_i.
// A partial whose factor is 0 is not read: it may hold anything. Loads of several partials are in flight at a time.
template <int kVectors, class LseOf, class Load>
__device__ __forceinline__ void warp_add_partials(const MergedLse& merged, int begin, int end, LseOf lse_of, Load load,
                                                  float4 (&sum)[kVectors]) {
  constexpr int kInFlight = kVectors == 1 ? 8 : 4;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  for (int first = begin; first < end; first += kWarpLanes) {
    const float own = first + lane < end ? merged.factor(lse_of(first + lane)) : 0.0f;
    for (int at = 0; at < min_of(end - first, kWarpLanes); at += kInFlight) {
      float factor[kInFlight];
      float4 o[kInFlight][kVectors];
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        factor[i] = __shfl_sync(kAllLanes, own, at + i);
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
          o[i][v] = factor[i] != 0.0f ? load(first + at + i, v) : float4{0.0f, 0.0f, 0.0f, 0.0f};
        }
      }
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
          sum[v].x += factor[i] * o[i][v].x, sum[v].y += factor[i] * o[i][v].y;
          sum[v].z += factor[i] * o[i][v].z, sum[v].w += factor[i] * o[i][v].w;
        }
      }
    }
  }
}

// Four neighbouring elements; 8-byte (float: 16-byte) aligned.
__device__ __forceinline__ float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }
template <class Element>
__device__ __forceinline__ float4 load4(const Element* from) {
  const uint2 bits = *reinterpret_cast<const uint2*>(from);
  Element elements[4];
  std::memcpy(elements, &bits, sizeof bits);
  return {static_cast<float>(elements[0]), static_cast<float>(elements[1]), static_cast<float>(elements[2]),
          static_cast<float>(elements[3])};
}
__device__ __forceinline__ void store4(float* to, float4 v) { *reinterpret_cast<float4*>(to) = v; }
template <class Element>
__device__ __forceinline__ void store4(Element* to, float4 v) {
  const Element elements[4] = {static_cast<Element>(v.x), static_cast<Element>(v.y), static_cast<Element>(v.z),
                               static_cast<Element>(v.w)};
  uint2 bits;
  std::memcpy(&bits, elements, sizeof bits);
  *reinterpret_cast<uint2*>(to) = bits;
}

}  // namespace flash_mla::cuda
