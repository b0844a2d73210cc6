// The order of a row's 512 value columns in partials of O^T: a thread holds the same column of each of the 8 slices of
// 64, so these lie together.
//
//   position of column 64 slice + column_in_slice = 8 column_in_slice + slice
#pragma once

#include "core/host_device.h"
#include "cuda/tile/swizzle.h"

namespace flash_mla::tile {

enum class ColumnOrder { natural, transposed };  // of a kernel's partials

inline constexpr int kValueSlices = 8;
// Units of at most so many rows have a kernel that computes O^T, and partials in this order.
inline constexpr int kMaxTransposedRows = 32;

FLASH_MLA_HOST_DEVICE constexpr int transposed_position(int slice, int column_in_slice) {
  return kValueSlices * column_in_slice + slice;
}
FLASH_MLA_HOST_DEVICE constexpr int column_at_position(int position) {
  return position % kValueSlices * kSliceColumns + position / kValueSlices;
}

}  // namespace flash_mla::tile
