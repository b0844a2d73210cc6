// Partials that say by themselves whether they are there. Each 32-bit word of one is blank until its value is written,
// and a reader takes a word that is not blank; so writers need no fence and readers no flag. A blank word is a NaN that
// no arithmetic gives: those that hardware makes are 0x7fffffff or carry the high bits of one that came in.
#pragma once

#include <cstdint>

namespace flash_mla::cuda {

inline constexpr std::uint32_t kBlank = 0xffb1a2c3u;

__device__ __forceinline__ bool is_blank(float x) { return __float_as_uint(x) == kBlank; }
__device__ __forceinline__ bool is_blank(float2 v) { return is_blank(v.x) || is_blank(v.y); }
__device__ __forceinline__ bool is_blank(float4 v) {
  return is_blank(v.x) || is_blank(v.y) || is_blank(v.z) || is_blank(v.w);
}
__device__ __forceinline__ float blank() { return __uint_as_float(kBlank); }
__device__ __forceinline__ float4 blanks() { return {blank(), blank(), blank(), blank()}; }

}  // namespace flash_mla::cuda
