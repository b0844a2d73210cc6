// The merge algebra (core/partial.h) of one row by a warp: the lanes share the partials' lse, and each lane sums its
// own columns over the partials in their order.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>

#include "core/int_math.h"
#include "core/partial.h"
#include "cuda/block_scan.h"
#include "cuda/ptx/opaque.h"

namespace flash_mla::cuda {

template <class Op>
__device__ __forceinline__ float reduce_warp(float value, Op op) {
#pragma unroll
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
    value = op(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// Of the lanes' values of lse. Every lane gets the result.
__device__ __forceinline__ MergedLse warp_merge_lse(float lse) {
  const float max = reduce_warp(lse, [](float a, float b) { return fmaxf(a, b); });
  MergedLse merged{finite_reference(max), 0.0f};
  merged.sum = reduce_warp(expf(lse - merged.reference), [](float a, float b) { return a + b; });
  return merged;
}

// lse_of(i), 0 <= i < n, is called by one lane for each i; kLoads of them are under way at a time. Every lane gets the
// result; its bits depend on n and the values alone.
template <int kLoads, class LseOf>
__device__ __forceinline__ MergedLse warp_merge_lse(int n, LseOf lse_of) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  float lse[kLoads];
  const auto load_from = [&](int first) {
#pragma unroll
    for (int j = 0; j < kLoads; ++j) {
      const int i = first + j * kWarpLanes + lane;
      lse[j] = i < n ? lse_of(i) : kNegativeInfinity;
    }
  };
  float max = kNegativeInfinity;
#pragma unroll 1
  for (int first = 0; first < n; first += kLoads * kWarpLanes) {
    load_from(first);
#pragma unroll
    for (const float x : lse) max = fmaxf(max, x);
  }
  MergedLse merged{finite_reference(reduce_warp(max, [](float a, float b) { return fmaxf(a, b); })), 0.0f};
#pragma unroll 1
  for (int first = 0; first < n; first += kLoads * kWarpLanes) {
    if (n > kLoads * kWarpLanes) load_from(first);
#pragma unroll
    for (const float x : lse) merged.sum += expf(x - merged.reference);
  }
  merged.sum = reduce_warp(merged.sum, [](float a, float b) { return a + b; });
  return merged;
}

// Four neighbouring elements, as they are loaded, in float.
__device__ __forceinline__ float4 widen(float4 v) { return v; }
template <class Element>
struct Four {
  uint2 bits;
};
template <class Element>
__device__ __forceinline__ float4 widen(const Four<Element>& four) {
  Element elements[4];
  std::memcpy(elements, &four.bits, sizeof four.bits);
  return {static_cast<float>(elements[0]), static_cast<float>(elements[1]), static_cast<float>(elements[2]),
          static_cast<float>(elements[3])};
}

__device__ __forceinline__ void add(float4& sum, float factor, float4 x) {
  sum.x += factor * x.x, sum.y += factor * x.y, sum.z += factor * x.z, sum.w += factor * x.w;
}
// The same, but nothing where x is not wanted: then it may hold anything, and the factor is 0. Without a branch, so
// that the next sum need not wait for this one.
__device__ __forceinline__ void add_if(bool wanted, float4& sum, float factor, float4 x) {
  add(sum, factor, {wanted ? x.x : 0.0f, wanted ? x.y : 0.0f, wanted ? x.z : 0.0f, wanted ? x.w : 0.0f});
}

// The merged lse of n partials, and sum += factor_i * scale_of(i, v) * o_i over partials begin .. end - 1 in order,
// with load(first, i, v) vector v of the lane's elements of o_(first + i), which widen() makes a float4. Loads of
// kInFlight partials are under way at a time, the first ones before the factors are known; a partial whose factor is 0
// may hold anything and is not added. lse_of and scale_of are called by one lane for a partial.
template <int kInFlight, int kVectors, class LseOf, class ScaleOf, class Load>
__device__ __forceinline__ MergedLse warp_merge(int n, int begin, int end, LseOf lse_of, ScaleOf scale_of, Load load,
                                                float4 (&sum)[kVectors]) {
  static_assert(kInFlight <= kWarpLanes);
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  decltype(load(0, 0, 0)) o[kInFlight][kVectors];
  float lse = kNegativeInfinity, scale[kVectors] = {};  // of the lane's partial
  const auto load_from = [&](int begin_of_round) {
    const int first = ptx::opaque(begin_of_round);
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        if (first + i < end) o[i][v] = load(first, i, v);
      }
    }
    const bool present = lane < kInFlight && first + lane < end;
    lse = present ? lse_of(first + lane) : kNegativeInfinity;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) scale[v] = present ? scale_of(first + lane, v) : 0.0f;
  };
  const float first_lse = lane < n ? lse_of(lane) : kNegativeInfinity;  // asked for first, as it is wanted first
  load_from(begin);
  const MergedLse merged = n <= kWarpLanes ? warp_merge_lse(first_lse) : warp_merge_lse<8>(n, lse_of);
#pragma unroll 1
  for (int first = begin; first < end; first += kInFlight) {
    const float own = merged.factor(lse);
#pragma unroll
    for (float& factor : scale) factor = own == 0.0f ? 0.0f : own * factor;
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const bool wanted = __shfl_sync(kAllLanes, own, i) != 0.0f;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        add_if(wanted, sum[v], __shfl_sync(kAllLanes, scale[v], i), widen(o[i][v]));
      }
    }
    if (first + kInFlight < end) load_from(first + kInFlight);
  }
  return merged;
}

// 8-byte (float: 16-byte) aligned. From the L2 cache: partials come from other multiprocessors.
__device__ __forceinline__ float4 load4(const float* from) { return __ldcg(reinterpret_cast<const float4*>(from)); }
template <class Element>
__device__ __forceinline__ Four<Element> load4(const Element* from) {
  return {__ldcg(reinterpret_cast<const uint2*>(from))};
}
template <class Element>
__device__ __forceinline__ void store2(Element* to, float x, float y) {  // 4-byte aligned
  const Element elements[2] = {static_cast<Element>(x), static_cast<Element>(y)};
  std::uint32_t bits;
  std::memcpy(&bits, elements, sizeof bits);
  *reinterpret_cast<std::uint32_t*>(to) = bits;
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
