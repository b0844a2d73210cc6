// How a slice of a tile lies in shared memory: 64 columns (128 bytes) of 16-bit elements a row, the 16-byte chunks of
// each row permuted so that the same chunk of 8 consecutive rows meets all 32 banks (the copy engine's "128-byte
// swizzle"). A slice starts at a multiple of 1024 bytes.
//
//   byte of (row, column) = 128 row + 16 ((column / 8) xor (row mod 8)) + 2 (column mod 8)
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace flash_mla::tile {

inline constexpr int kSliceColumns = 64;
inline constexpr int kRowBytes = 128;
inline constexpr int kChunkBytes = 16;  // what ldmatrix and stmatrix move a row
inline constexpr int kAtomRows = 8;     // rows after which the permutation repeats
inline constexpr int kAtomBytes = kAtomRows * kRowBytes;

FLASH_MLA_HOST_DEVICE constexpr int swizzled_chunk_bytes(int row, int chunk) {
  return row * kRowBytes + ((chunk ^ (row % kAtomRows)) * kChunkBytes);
}
FLASH_MLA_HOST_DEVICE constexpr int swizzled_bytes(int row, int column) {
  return swizzled_chunk_bytes(row, column / 8) + (column % 8) * 2;
}

}  // namespace flash_mla::tile
