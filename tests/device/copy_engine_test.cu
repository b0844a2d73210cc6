// The copy engine's boxes on the chip: where elements land, and what lies outside the tensor.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "cuda/ptx/fence.h"
#include "cuda/ptx/mbarrier.h"
#include "cuda/ptx/tma.h"
#include "cuda/tensor_map.h"
#include "cuda/tile/swizzle.h"
#include "device/gpu.h"

namespace flash_mla::test {
namespace {

constexpr int kSlice = 64 * 64;  // elements
constexpr int kSliceBytes = kSlice * 2;

struct BoxPlace {
  int column, row, page;
};

// Loads 64 rows as `boxes` boxes of 64 / boxes rows each and writes the slice as it lies in shared memory.
__global__ void load_boxes(const __grid_constant__ CUtensorMap map, BoxPlace place, int boxes, std::uint16_t* out) {
  __shared__ alignas(1024) std::uint16_t slice[kSlice];
  __shared__ ptx::Barrier landed;
  if (threadIdx.x == 0) {
    landed.init(1);
    ptx::fence_barrier_init();
    ptx::prefetch_map(map);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    landed.arrive_expecting(kSliceBytes);
    const int rows = 64 / boxes;
    for (int i = 0; i < boxes; ++i) {
      ptx::tma_load(slice + i * rows * 64, map, {place.column, place.row, place.page + i}, landed);
    }
  }
  landed.wait(0);
  for (int i = threadIdx.x; i < kSlice; i += blockDim.x) out[i] = slice[i];
}

class CopyEngine : public testing::TestWithParam<int> {};

TEST_P(CopyEngine, BoxesArriveSwizzled) {
  constexpr int kColumns = 192, kPages = 6;
  const int boxes = GetParam(), page_rows = 64 / boxes;
  constexpr int kPitch = kColumns + 8;  // a strided view
  std::vector<std::uint16_t> tensor(static_cast<std::size_t>(kPages * page_rows * kPitch), 0x7fff);
  const auto value = [&](int page, int row, int column) {
    const bool inside = page >= 0 && page < kPages && row < page_rows && column < kColumns;
    return static_cast<std::uint16_t>(inside ? (page * page_rows + row) * kColumns + column + 1 : 0);
  };
  for (int page = 0; page < kPages; ++page)
    for (int row = 0; row < page_rows; ++row)
      for (int column = 0; column < kColumns; ++column)
        tensor[static_cast<std::size_t>((page * page_rows + row) * kPitch + column)] = value(page, row, column);
  const DeviceMemory memory = uploaded(tensor), out(kSliceBytes);
  cuda::TensorMapSpec spec{.name = "tensor", .base = memory.data(), .rank = 3};
  spec.sizes = {kColumns, page_rows, kPages};
  spec.stride_elements = {1, kPitch, page_rows * kPitch};
  spec.box = {64, page_rows, 1};
  CUtensorMap map;
  const Status status = cuda::encode_tensor_map(spec, &map);
  ASSERT_TRUE(status.ok()) << status.message();
  // Inside; past the last column and the last page; before the first page.
  for (const BoxPlace place : {BoxPlace{64, 0, 1}, BoxPlace{160, 0, kPages - 1}, BoxPlace{0, 0, -1}}) {
    load_boxes<<<1, 128>>>(map, place, boxes, static_cast<std::uint16_t*>(out.data()));
    FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
    const auto slice = downloaded<std::uint16_t>(out);
    for (int row = 0; row < 64; ++row)
      for (int column = 0; column < 64; ++column)
        ASSERT_EQ(slice[static_cast<std::size_t>(tile::swizzled_bytes(row, column) / 2)],
                  value(place.page + row / page_rows, row % page_rows, place.column + column))
            << "row " << row << " column " << column << " page " << place.page;
  }
}

INSTANTIATE_TEST_SUITE_P(Boxes, CopyEngine, testing::Values(1, 2, 4));

// Loads a strip: two slices of 64 rows, of which the first ones may lie before the page. With hints to the L2 cache, or
// without.
template <bool Hints>
__global__ void load_strip(const __grid_constant__ CUtensorMap map, int row, int slice, int page, std::uint16_t* out) {
  __shared__ alignas(1024) std::uint16_t strip[2 * kSlice];
  __shared__ ptx::Barrier landed;
  if (threadIdx.x == 0) {
    landed.init(1);
    ptx::fence_barrier_init();
    landed.arrive_expecting(2 * kSliceBytes);
    if constexpr (Hints) {
      ptx::tma_prefetch(map, {0, row, slice, 0, page}, ptx::L2Priority::evict_normal);
      ptx::tma_load(strip, map, {0, row, slice, 0, page}, landed, ptx::L2Priority::evict_first);
    } else {
      ptx::tma_load(strip, map, {0, row, slice, 0, page}, landed);
    }
  }
  __syncthreads();
  landed.wait(0);
  for (int i = threadIdx.x; i < 2 * kSlice; i += blockDim.x) out[i] = strip[i];
}

template <bool Hints>
void check_strips() {
  constexpr int kColumns = 256, kPages = 3;
  std::vector<std::uint16_t> tensor(static_cast<std::size_t>(kPages * 64 * kColumns));
  for (std::size_t i = 0; i < tensor.size(); ++i) tensor[i] = static_cast<std::uint16_t>(i + 1);
  const DeviceMemory memory = uploaded(tensor), out(2 * kSliceBytes);
  cuda::TensorMapSpec spec{.name = "tensor", .base = memory.data(), .rank = 5};
  spec.sizes = {64, 64, kColumns / 64, 1, kPages};
  spec.stride_elements = {1, kColumns, 64, 0, 64 * kColumns};
  spec.box = {64, 64, 2, 1, 1};
  CUtensorMap map;
  const Status status = cuda::encode_tensor_map(spec, &map);
  ASSERT_TRUE(status.ok()) << status.message();
  for (const int first_row : {0, -1, -40, -63, -64}) {
    load_strip<Hints><<<1, 128>>>(map, first_row, 2, 1, static_cast<std::uint16_t*>(out.data()));
    FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
    const auto strip = downloaded<std::uint16_t>(out);
    for (int row = 0; row < 64; ++row)
      for (int column = 0; column < 128; ++column) {
        const int from = first_row + row, slice = column / 64;
        const auto expected = from < 0 ? 0 : tensor[static_cast<std::size_t>((64 + from) * kColumns + 128 + column)];
        ASSERT_EQ(strip[static_cast<std::size_t>(slice * kSlice + tile::swizzled_bytes(row, column % 64) / 2)],
                  expected)
            << "row " << row << " column " << column << " from " << first_row;
      }
  }
}

TEST(CopyEngineStrips, RowsBeforeThePageArriveAsZeros) { check_strips<false>(); }
TEST(CopyEngineStrips, HintsChangeNothing) { check_strips<true>(); }

}  // namespace
}  // namespace flash_mla::test
