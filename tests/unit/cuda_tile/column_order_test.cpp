// The order of columns in partials of O^T: a permutation that its inverse undoes.
#include "cuda/tile/column_order.h"

#include <gtest/gtest.h>

#include <array>

namespace flash_mla::tile {
namespace {

TEST(ColumnOrder, EveryColumnHasItsPosition) {
  std::array<int, kValueSlices* kSliceColumns> times = {};
  for (int slice = 0; slice < kValueSlices; ++slice)
    for (int column = 0; column < kSliceColumns; ++column) {
      const int position = transposed_position(slice, column);
      ASSERT_EQ(column_at_position(position), slice * kSliceColumns + column);
      ++times[static_cast<std::size_t>(position)];
    }
  for (const int n : times) ASSERT_EQ(n, 1);
}

}  // namespace
}  // namespace flash_mla::tile
