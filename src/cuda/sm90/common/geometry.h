// What the decode kernels share: rows of 576 in slices of 64 columns, 0-7 latent (and value), 8 rope.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/host_device.h"
#include "cuda/tile/swizzle.h"
#include "flash_mla/plan.h"

namespace flash_mla::sm90 {

inline constexpr int kSlices = 9;
inline constexpr int kLatentSlices = 8;
inline constexpr int kSliceBytes = kBlockTokens * tile::kRowBytes;  // of one block of tokens
static_assert(kSlices * tile::kSliceColumns == kHeadDim && kLatentSlices * tile::kSliceColumns == kLatentDim);

// Slices of a block arrive and are released in strips: two latent slices each, and rope by itself.
inline constexpr int kStripSlices = 2;
inline constexpr int kRopeStrip = kLatentSlices / kStripSlices;
inline constexpr int kStrips = kRopeStrip + 1;
FLASH_MLA_HOST_DEVICE constexpr int first_slice_of(int strip) { return strip * kStripSlices; }
FLASH_MLA_HOST_DEVICE constexpr int slices_of(int strip) { return strip == kRopeStrip ? 1 : kStripSlices; }

inline constexpr int kWarpgroupThreads = 128;
inline constexpr int kWarpgroupWarps = 4;
inline constexpr unsigned kAllLanes = 0xffffffffu;
inline constexpr int kSharedMemoryLimitBytes = 227 * 1024;  // of a thread block

// One slice of a block of tokens, or of 64 rows of queries.
struct alignas(1024) Slice {
  unsigned char bytes[kSliceBytes];  // [64 rows][128 bytes], swizzled
};

// How large exp2 of a row's scores less the reference may become before the reference is raised and accumulators are
// rescaled. bf16 has the exponents of f32; P in fp16 must stay far below 65504.
template <class Element>
inline constexpr float kLargestP = 0;
template <>
inline constexpr float kLargestP<__nv_bfloat16> = 0x1p24f;
template <>
inline constexpr float kLargestP<__half> = 0x1p8f;

}  // namespace flash_mla::sm90
