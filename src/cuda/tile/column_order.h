// The orders of a row's 512 columns in partials. A thread stores what it holds of a row, 16 bytes at a time, so columns
// lie in the order in which threads hold them.
//
//   pairs        accumulators of O: a thread has the pair 2 t, 2 t + 1 of each 8 columns (tile/accumulator.h), so the
//                four pairs of 32 columns lie together:
//                position of column 32 g + 8 j + 2 t + e = 32 g + 8 t + 2 j + e
//   transposed   accumulators of O^T: a thread has the same column of each of the 8 slices of 64, together:
//                position of column 64 slice + column_in_slice = 8 column_in_slice + slice
#pragma once

#include "core/host_device.h"
#include "cuda/tile/swizzle.h"

namespace flash_mla::tile {

enum class ColumnOrder { pairs, transposed };

inline constexpr int kValueSlices = 8;
// Units of at most so many rows have a kernel that computes O^T, and partials in that order.
inline constexpr int kMaxTransposedRows = 32;

FLASH_MLA_HOST_DEVICE constexpr int transposed_position(int slice, int column_in_slice) {
  return kValueSlices * column_in_slice + slice;
}

// The column at a position.
template <ColumnOrder Order>
FLASH_MLA_HOST_DEVICE constexpr int column_at(int position) {
  if (Order == ColumnOrder::transposed) return position % kValueSlices * kSliceColumns + position / kValueSlices;
  const int t = position / 8 % 4, j = position / 2 % 4;
  return position / 32 * 32 + 8 * j + 2 * t + position % 2;
}

}  // namespace flash_mla::tile
