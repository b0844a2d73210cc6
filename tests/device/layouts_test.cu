// The layout functions of cuda/tile as the chip evaluates them, over their domains, against statements that are made
// otherwise: inverses, the copy engine's swizzle, division, and where wgmma itself puts the columns of a product.
// (products_test.cu has the descriptors.)
#include <cuda_bf16.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "cuda/ptx/wgmma.h"
#include "cuda/tile/accumulator.h"
#include "cuda/tile/column_order.h"
#include "cuda/tile/ring_position.h"
#include "cuda/tile/swizzle.h"
#include "device/gpu.h"
#include "device/products.cuh"

namespace flash_mla::test {
namespace {

using ptx::Major;
using tile::ColumnOrder;

template <class Function>
__global__ void evaluate(int count, int* values) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) values[i] = Function{}(i);
}

// Function{}(i) for i below count, from the GPU.
template <class Function>
std::vector<int> values_of(int count) {
  const DeviceMemory values(std::int64_t{4} * count);
  evaluate<Function><<<1, 256>>>(count, static_cast<int*>(values.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  return downloaded<int>(values);
}

// ---- slices --------------------------------------------------------------------------------------------------------

// Address bits 4-6 are xored with bits 7-9.
int hardware_swizzle(int bytes) { return bytes ^ ((bytes >> 3) & 0x70); }

struct BytesOfElement {
  __device__ int operator()(int i) const { return tile::swizzled_bytes(i / 64, i % 64); }
};
struct BytesOfChunk {
  __device__ int operator()(int i) const { return tile::swizzled_chunk_bytes(i / 8, i % 8); }
};

TEST(Layouts, SlicesAreSwizzledAsTheCopyEngineDoes) {
  const auto elements = values_of<BytesOfElement>(64 * 64), chunks = values_of<BytesOfChunk>(64 * 8);
  for (int i = 0; i < 64 * 64; ++i) ASSERT_EQ(elements[static_cast<std::size_t>(i)], hardware_swizzle(2 * i));
  for (int i = 0; i < 64 * 8; ++i) ASSERT_EQ(chunks[static_cast<std::size_t>(i)], hardware_swizzle(16 * i));
}

struct BytesOfFragment {  // of thread, step
  __device__ int operator()(int i) const { return tile::fragment_bytes(i / 4 / 32, i / 4 % 32, i % 4); }
};

// Matrix by matrix: the lanes that name the rows of each.
TEST(Layouts, LanesNameTheRowsOfAFragment) {
  const auto bytes = values_of<BytesOfFragment>(128 * 4);
  for (int row = 0; row < 64; ++row)
    for (int column = 0; column < 64; column += 8) {
      const int matrix = row % 16 / 8 + column % 16 / 8 * 2, thread = row / 16 * 32 + matrix * 8 + row % 8;
      ASSERT_EQ(bytes[static_cast<std::size_t>(thread * 4 + column / 16)], hardware_swizzle(128 * row + 2 * column));
    }
}

// ---- accumulators --------------------------------------------------------------------------------------------------

constexpr int kMostAccumulators = 128;  // a thread, of 64 x 256

struct RowOfAccumulator {  // of thread, register
  __device__ int operator()(int i) const {
    const int thread = i / kMostAccumulators;
    return tile::accumulator_row(thread / 32, thread % 32, i % kMostAccumulators);
  }
};
struct ColumnOfAccumulator {
  __device__ int operator()(int i) const {
    return tile::accumulator_column(i / kMostAccumulators % 32, i % kMostAccumulators);
  }
};

// The inverse: which thread holds an element, in which register. That it is the chip's is shown by Products.
TEST(Layouts, AccumulatorsAreElements) {
  const auto rows = values_of<RowOfAccumulator>(128 * kMostAccumulators);
  const auto columns = values_of<ColumnOfAccumulator>(128 * kMostAccumulators);
  for (int row = 0; row < 64; ++row)
    for (int column = 0; column < 256; ++column) {
      const int thread = row / 16 * 32 + row % 8 * 4 + column % 8 / 2;
      const int i = column / 8 * 4 + row % 16 / 8 * 2 + column % 2;
      const auto at = static_cast<std::size_t>(thread * kMostAccumulators + i);
      ASSERT_EQ(rows[at], row) << "column " << column;
      ASSERT_EQ(columns[at], column) << "row " << row;
    }
}

// ---- orders of columns ---------------------------------------------------------------------------------------------

template <ColumnOrder Order>
struct ColumnAt {
  __device__ int operator()(int position) const { return tile::column_at<Order>(position); }
};
struct TransposedPosition {  // of a column
  __device__ int operator()(int i) const { return tile::transposed_position(i / 64, i % 64); }
};

DeviceMemory uploaded_integers(int count, int (*value)(int)) {
  std::vector<__nv_bfloat16> values;
  for (int i = 0; i < count; ++i) values.push_back(static_cast<__nv_bfloat16>(static_cast<float>(value(i))));
  return uploaded(values);
}
const __nv_bfloat16* as_elements(const DeviceMemory& memory) {
  return static_cast<const __nv_bfloat16*>(memory.data());
}

using PairOperands = Operands<__nv_bfloat16, 256, Major::mn, Major::k>;

// Each thread stores what it holds of a row of the product as the epilogue does: of 32 columns, 8 side by side.
__global__ void __launch_bounds__(128) store_pairs(const __nv_bfloat16* a, const __nv_bfloat16* b, int* rows) {
  extern __shared__ __align__(1024) unsigned char memory[];
  const PairOperands operands(memory, a, b);
  float d[128];
  multiply_from_shared(operands, d);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 128; ++i) {
    const int row = 16 * warp + lane / 4 + 8 * (i / 2 % 2), of_row = i / 4 * 2 + i % 2;
    rows[row * 256 + of_row / 8 * 32 + 8 * (lane % 4) + of_row % 8] = static_cast<int>(d[i]);
  }
}

// Each column of the product holds its number; the other half of a row's 512 columns repeats the first.
TEST(Layouts, PairsHaveTheColumnsOfThreads) {
  const DeviceMemory a = uploaded_integers(kSlice, [](int i) { return i % 64 == 0 ? 1 : 0; });
  const DeviceMemory b = uploaded_integers(64 * 256, [](int i) { return i < 256 ? i : 0; });
  const DeviceMemory stored(64 * 256 * 4);
  store_pairs<<<1, 128, PairOperands::kBytes>>>(as_elements(a), as_elements(b), static_cast<int*>(stored.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  const auto rows = downloaded<int>(stored), columns = values_of<ColumnAt<ColumnOrder::pairs>>(512);
  for (int row = 0; row < 64; ++row)
    for (int position = 0; position < 512; ++position)
      ASSERT_EQ(columns[static_cast<std::size_t>(position)],
                position / 256 * 256 + rows[static_cast<std::size_t>(row * 256 + position % 256)])
          << "row " << row << " position " << position;
}

using SliceOperands = Operands<__nv_bfloat16, 16, Major::k, Major::mn>;

// A slice of O^T, whose columns are rows: each thread stores its elements among those that it has of other slices.
__global__ void __launch_bounds__(128)
    store_transposed_slice(const __nv_bfloat16* a, const __nv_bfloat16* b, int slice, int* rows) {
  extern __shared__ __align__(1024) unsigned char memory[];
  const SliceOperands operands(memory, a, b);
  float d[8];
  multiply_from_shared(operands, d);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int own_column = 16 * warp + lane / 4 + 8 * (i / 2 % 2), row = 8 * (i / 4) + 2 * (lane % 4) + i % 2;
    rows[row * 512 + own_column * 8 + slice] = static_cast<int>(d[i]);
  }
}

// Element (column in slice, row) of a slice's product is the column's number: its own and 64 times the slice's.
TEST(Layouts, TransposedColumnsLieTogether) {
  const DeviceMemory a = uploaded_integers(kSlice, [](int i) { return i % 64 == 0 ? i / 64 : i % 64 == 1 ? 64 : 0; });
  const DeviceMemory stored(16 * 512 * 4);
  for (int slice = 0; slice < 8; ++slice) {
    std::vector<__nv_bfloat16> b(16 * 64, static_cast<__nv_bfloat16>(0.f));
    for (std::size_t n = 0; n < 16; ++n) {
      b[n * 64] = static_cast<__nv_bfloat16>(1.f);
      b[n * 64 + 1] = static_cast<__nv_bfloat16>(static_cast<float>(slice));
    }
    store_transposed_slice<<<1, 128, SliceOperands::kBytes>>>(as_elements(a), as_elements(uploaded(b)), slice,
                                                              static_cast<int*>(stored.data()));
    FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  }
  const auto rows = downloaded<int>(stored), columns = values_of<ColumnAt<ColumnOrder::transposed>>(512);
  const auto positions = values_of<TransposedPosition>(512);
  for (int row = 0; row < 16; ++row)
    for (int position = 0; position < 512; ++position) {
      const int column = rows[static_cast<std::size_t>(row * 512 + position)];
      ASSERT_EQ(columns[static_cast<std::size_t>(position)], column) << "row " << row << " position " << position;
      ASSERT_EQ(positions[static_cast<std::size_t>(column)], position) << "row " << row << " column " << column;
    }
}

// ---- rings ---------------------------------------------------------------------------------------------------------

constexpr int kPositions = 64;

// Of step - 1, position, ahead: the place, and behind all places of even rounds those of odd ones.
template <int Places>
struct PlaceInTwoRounds {
  __device__ int operator()(int i) const {
    const auto ahead = static_cast<std::uint32_t>(i % (Places + 1));
    const int position = i / (Places + 1) % kPositions, step = i / (Places + 1) / kPositions + 1;
    tile::RingPosition<Places> at;
    for (int n = 0; n < position; ++n) at.advance(static_cast<std::uint32_t>(step));
    return static_cast<int>(at.place(ahead) + Places * at.parity(ahead));
  }
};

template <int Places>
void expect_remainders() {
  const auto places = values_of<PlaceInTwoRounds<Places>>(Places * kPositions * (Places + 1));
  std::size_t i = 0;
  for (int step = 1; step <= Places; ++step)
    for (int position = 0; position < kPositions; ++position)
      for (int ahead = 0; ahead <= Places; ++ahead)
        ASSERT_EQ(places[i++], (position * step + ahead) % (2 * Places))
            << Places << ": " << position << " * " << step << " + " << ahead;
}

TEST(Layouts, RingPositionsAreRemainders) {
  expect_remainders<1>();
  expect_remainders<2>();
  expect_remainders<9>();
  expect_remainders<11>();
}

}  // namespace
}  // namespace flash_mla::test
