// Shared-memory matrix descriptors of wgmma for slices laid out as in swizzle.h.
//
//   bits  0-13 start address / 16      bits 16-29 leading byte offset / 16
//   bits 32-45 stride byte offset / 16 bits 62-63 layout (1: 128-byte swizzle)
//
// K-major (a, and b of S = Q K^T: consecutive k lie in a row): the stride offset leads from 8 rows to the
// next 8; a step of 16 in k is 32 bytes within the swizzled row. MN-major (b of O = P V, a of O^T = V^T P^T: a row is
// one k): the stride offset leads from 8 rows (k) to the next 8, the leading offset from 64 columns (n or m) to the
// next slice; a step of 16 in k is 16 rows.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "cuda/tile/swizzle.h"

namespace flash_mla::tile {

inline constexpr int kStepK = 16;  // k of one wgmma

FLASH_MLA_HOST_DEVICE constexpr std::uint64_t make_descriptor(std::uint32_t address, int leading_bytes,
                                                              int stride_bytes) {
  return static_cast<std::uint64_t>((address & 0x3ffffu) >> 4) |
         static_cast<std::uint64_t>((leading_bytes >> 4) & 0x3fff) << 16 |
         static_cast<std::uint64_t>((stride_bytes >> 4) & 0x3fff) << 32 | std::uint64_t{1} << 62;
}

// Moves the start address; the result stays below 2^18.
FLASH_MLA_HOST_DEVICE constexpr std::uint64_t advance(std::uint64_t descriptor, int bytes) {
  return descriptor + static_cast<std::uint64_t>(bytes >> 4);
}

// A slice of 64 columns whose rows are m (a) or n (b); the leading offset is not used.
FLASH_MLA_HOST_DEVICE constexpr std::uint64_t k_major(std::uint32_t slice_address) {
  return make_descriptor(slice_address, kChunkBytes, kAtomBytes);
}
FLASH_MLA_HOST_DEVICE constexpr int k_major_step_bytes(int step) { return step * kStepK * 2; }

// Slices `slice_bytes` apart whose rows are k and whose columns are n (b) or m (a).
FLASH_MLA_HOST_DEVICE constexpr std::uint64_t mn_major(std::uint32_t slice_address, int slice_bytes) {
  return make_descriptor(slice_address, slice_bytes, kAtomBytes);
}
FLASH_MLA_HOST_DEVICE constexpr int mn_major_step_bytes(int step) { return step * kStepK * kRowBytes; }

}  // namespace flash_mla::tile
