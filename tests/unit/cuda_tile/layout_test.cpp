// The layout functions of the GPU kernels, checked exhaustively on the host against the definitions in the PTX manual.
#include <gtest/gtest.h>

#include <array>
#include <set>
#include <vector>

#include "cuda/tile/accumulator.h"
#include "cuda/tile/descriptor.h"
#include "cuda/tile/swizzle.h"

namespace flash_mla::tile {
namespace {

// The copy engine's definition: address bits 4-6 are xored with bits 7-9.
int hardware_swizzle(int bytes) { return bytes ^ ((bytes >> 3) & 0x70); }

TEST(Swizzle, IsTheHardwaresPermutation) {
  for (int row = 0; row < 64; ++row)
    for (int column = 0; column < kSliceColumns; ++column)
      ASSERT_EQ(swizzled_bytes(row, column), hardware_swizzle(row * kRowBytes + column * 2)) << row << ' ' << column;
}

TEST(Swizzle, IsABijectionWithinEachRow) {
  for (int row = 0; row < 64; ++row) {
    std::set<int> seen;
    for (int chunk = 0; chunk < 8; ++chunk) seen.insert(swizzled_chunk_bytes(row, chunk) - row * kRowBytes);
    EXPECT_EQ(seen.size(), 8u);
    EXPECT_EQ(*seen.rbegin(), 112);
  }
}

TEST(Swizzle, EightRowsOfAChunkMeetAllBanks) {
  for (int first = 0; first < 64; first += 8)
    for (int chunk = 0; chunk < 8; ++chunk) {
      std::set<int> banks;
      for (int row = first; row < first + 8; ++row) banks.insert(swizzled_chunk_bytes(row, chunk) / 16 % 8);
      EXPECT_EQ(banks.size(), 8u);
    }
}

TEST(Descriptor, PacksItsFields) {
  const std::uint64_t d = make_descriptor(0x12340, 8192, 1024);
  EXPECT_EQ(d & 0x3fff, 0x1234u);
  EXPECT_EQ(d >> 16 & 0x3fff, 512u);
  EXPECT_EQ(d >> 32 & 0x3fff, 64u);
  EXPECT_EQ(d >> 62, 1u);
  EXPECT_EQ(d & (std::uint64_t{0x3} << 14 | std::uint64_t{0x3} << 30 | std::uint64_t{0xffff} << 46), 0u);
}

// Reads an element as wgmma does: start address, plus the canonical layout of the descriptor, then the swizzle on the
// absolute address.
int k_major_element(std::uint64_t d, int row, int k) {
  const int start = static_cast<int>(d & 0x3fff) << 4, stride = static_cast<int>(d >> 32 & 0x3fff) << 4;
  return hardware_swizzle(start + row / 8 * stride + row % 8 * kRowBytes + k * 2);
}
int mn_major_element(std::uint64_t d, int k, int n) {
  const int start = static_cast<int>(d & 0x3fff) << 4, stride = static_cast<int>(d >> 32 & 0x3fff) << 4;
  const int leading = static_cast<int>(d >> 16 & 0x3fff) << 4;
  return hardware_swizzle(start + n / 64 * leading + k / 8 * stride + k % 8 * kRowBytes + n % 64 * 2);
}

TEST(Descriptor, KMajorReadsTheSlice) {
  constexpr int base = 5 * 8192;
  for (int step = 0; step < 4; ++step) {
    const std::uint64_t d = advance(k_major(base), k_major_step_bytes(step));
    for (int row = 0; row < 64; ++row)
      for (int k = 0; k < 16; ++k) ASSERT_EQ(k_major_element(d, row, k), base + swizzled_bytes(row, 16 * step + k));
  }
}

TEST(Descriptor, NMajorReadsConsecutiveSlices) {
  constexpr int base = 9 * 8192, slice_bytes = 8192;
  for (int step = 0; step < 4; ++step) {
    const std::uint64_t d = advance(mn_major(base, slice_bytes), mn_major_step_bytes(step));
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < 256; ++n)
        ASSERT_EQ(mn_major_element(d, k, n), base + n / 64 * slice_bytes + swizzled_bytes(16 * step + k, n % 64));
  }
}

TEST(Accumulator, CoversTheTileOnce) {
  std::vector<int> count(64 * 64, 0);
  for (int thread = 0; thread < 128; ++thread)
    for (int i = 0; i < 32; ++i)
      ++count[accumulator_row(thread / 32, thread % 32, i) * 64 + accumulator_column(thread % 32, i)];
  for (int c : count) EXPECT_EQ(c, 1);
}

// stmatrix of packed accumulators must put every element where the swizzled slice has it.
TEST(Fragment, StoredAccumulatorsFormTheSlice) {
  std::vector<int> slice(64 * 64, -1);
  for (int warp = 0; warp < 4; ++warp)
    for (int step = 0; step < 4; ++step)
      for (int matrix = 0; matrix < 4; ++matrix)
        for (int lane = 0; lane < 32; ++lane) {
          const int row_of_matrix = lane / 4;
          const int address = fragment_bytes(warp, 8 * matrix + row_of_matrix, step) + lane % 4 * 4;
          for (int e = 0; e < 2; ++e) {
            // Matrix h + 2 g is accumulator pair (j = 2 step + g, h).
            const int i = 4 * (2 * step + matrix / 2) + 2 * (matrix % 2) + e;
            slice[address / 2 + e] = accumulator_row(warp, lane, i) * 64 + accumulator_column(lane, i);
          }
        }
  for (int row = 0; row < 64; ++row)
    for (int column = 0; column < 64; ++column)
      ASSERT_EQ(slice[swizzled_bytes(row, column) / 2], row * 64 + column) << row << ' ' << column;
}

}  // namespace
}  // namespace flash_mla::tile
