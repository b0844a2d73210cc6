// The orders of columns in partials: every column has one position, the one that its thread stores it at.
#include "cuda/tile/column_order.h"

#include <gtest/gtest.h>

#include <array>

#include "cuda/tile/accumulator.h"

namespace flash_mla::tile {
namespace {

TEST(ColumnOrder, PairsOfAThreadLieTogether) {
  std::array<int, kValueSlices* kSliceColumns> times = {};
  for (int lane = 0; lane < 4; ++lane)
    for (int i = 0; i < 2 * 128; i += i % 4 == 1 ? 3 : 1) {  // the lane's accumulators of its first row
      const int column = accumulator_column(lane, i), of_row = i / 4 * 2 + i % 2;
      const int position = of_row / 8 * 32 + 8 * lane + of_row % 8;
      ASSERT_EQ(column_at<ColumnOrder::pairs>(position), column);
      ++times[static_cast<std::size_t>(column)];
    }
  for (const int n : times) ASSERT_EQ(n, 1);
}

TEST(ColumnOrder, TransposedColumnsHaveTheirPositions) {
  std::array<int, kValueSlices* kSliceColumns> times = {};
  for (int slice = 0; slice < kValueSlices; ++slice)
    for (int column = 0; column < kSliceColumns; ++column) {
      const int position = transposed_position(slice, column);
      ASSERT_EQ(column_at<ColumnOrder::transposed>(position), slice * kSliceColumns + column);
      ++times[static_cast<std::size_t>(position)];
    }
  for (const int n : times) ASSERT_EQ(n, 1);
}

}  // namespace
}  // namespace flash_mla::tile
