// Wrappers of cuda/ptx on the chip, with integer-valued data whose answers are exact: matrices, copies of plain bytes,
// single values. Others have files of their own: products, barriers, registers, atomics, boxes (copy_engine),
// dependent launches.
#include <gtest/gtest.h>

#include <climits>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cuda/ptx/bulk_copy.h"
#include "cuda/ptx/fence.h"
#include "cuda/ptx/matrix.h"
#include "cuda/ptx/mbarrier.h"
#include "cuda/ptx/opaque.h"
#include "cuda/ptx/prefetch.h"
#include "cuda/ptx/warpgroup.h"
#include "cuda/tile/accumulator.h"
#include "cuda/tile/swizzle.h"
#include "device/gpu.h"

namespace flash_mla::test {
namespace {

constexpr int kSlice = 64 * 64;  // elements
constexpr int kSliceBytes = kSlice * 2;

// ---- matrices ------------------------------------------------------------------------------------------------------

__global__ void matrix_round_trip(std::uint16_t* slice_out, std::uint32_t* fragments_out) {
  __shared__ alignas(1024) unsigned char slice[kSliceBytes];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int step = 0; step < 4; ++step) {
    std::uint32_t fragment[4];
    for (int m = 0; m < 4; ++m) {
      const int i = 8 * step + 4 * (m / 2) + 2 * (m % 2);
      const int first = tile::accumulator_row(warp, lane, i) * 64 + tile::accumulator_column(lane, i);
      fragment[m] = static_cast<std::uint32_t>(first) | static_cast<std::uint32_t>(first + 1) << 16;
    }
    ptx::store_matrix_x4(slice + tile::fragment_bytes(warp, lane, step), fragment);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kSlice; i += blockDim.x) slice_out[i] = reinterpret_cast<std::uint16_t*>(slice)[i];
  for (int step = 0; step < 4; ++step) {
    std::uint32_t fragment[4];
    ptx::load_matrix_x4(slice + tile::fragment_bytes(warp, lane, step), fragment);
    for (int m = 0; m < 4; ++m) fragments_out[(threadIdx.x * 4 + step) * 4 + m] = fragment[m];
  }
}

TEST(Matrices, RoundTripThroughTheSlice) {
  const DeviceMemory slice(kSliceBytes), fragments(128 * 16 * 4);
  matrix_round_trip<<<1, 128>>>(static_cast<std::uint16_t*>(slice.data()),
                                static_cast<std::uint32_t*>(fragments.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  const auto elements = downloaded<std::uint16_t>(slice);
  for (int row = 0; row < 64; ++row)
    for (int column = 0; column < 64; ++column)
      ASSERT_EQ(elements[static_cast<std::size_t>(tile::swizzled_bytes(row, column) / 2)], row * 64 + column);
  const auto loaded = downloaded<std::uint32_t>(fragments);
  for (int thread = 0; thread < 128; ++thread)
    for (int step = 0; step < 4; ++step)
      for (int m = 0; m < 4; ++m) {
        const int i = 8 * step + 4 * (m / 2) + 2 * (m % 2);
        const int first =
            tile::accumulator_row(thread / 32, thread % 32, i) * 64 + tile::accumulator_column(thread % 32, i);
        ASSERT_EQ(loaded[static_cast<std::size_t>((thread * 4 + step) * 4 + m)],
                  static_cast<std::uint32_t>(first) | static_cast<std::uint32_t>(first + 1) << 16);
      }
}

// Warp w writes its 16 columns of a transposed slice of 16 rows: element (row, column) is 64 column + row.
__global__ void store_transposed(std::uint16_t* slice_out) {
  __shared__ alignas(1024) unsigned char slice[kSliceBytes];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  std::uint32_t fragment[4];
  for (int m = 0; m < 4; ++m) {  // (columns 0-7, columns 8-15) x (rows 0-7, rows 8-15)
    const int column = 16 * warp + lane / 4 + 8 * (m % 2), row = 8 * (m / 2) + 2 * (lane % 4);
    fragment[m] = static_cast<std::uint32_t>(64 * column + row) | static_cast<std::uint32_t>(64 * column + row + 1)
                                                                      << 16;
  }
  const int row = lane / 16 * 8 + lane % 8, chunk = 2 * warp + lane / 8 % 2;
  ptx::store_matrix_x4_transposed(slice + tile::swizzled_chunk_bytes(row, chunk), fragment);
  __syncthreads();
  for (int i = threadIdx.x; i < kSlice; i += blockDim.x) slice_out[i] = reinterpret_cast<std::uint16_t*>(slice)[i];
}

TEST(Matrices, StoredTransposed) {
  const DeviceMemory slice(kSliceBytes);
  store_transposed<<<1, 128>>>(static_cast<std::uint16_t*>(slice.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  const auto elements = downloaded<std::uint16_t>(slice);
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 64; ++column)
      ASSERT_EQ(elements[static_cast<std::size_t>(tile::swizzled_bytes(row, column) / 2)], 64 * column + row);
}

// ---- copies of plain bytes -----------------------------------------------------------------------------------------

// Twice through the same shared memory: rows of 64 words, one a lane.
__global__ void store_in_bulk(std::uint32_t* to) {
  __shared__ alignas(16) std::uint32_t words[16][64];
  for (std::uint32_t round = 0; round < 2; ++round) {
    if (threadIdx.x < 32) ptx::wait_for_bulk_reads();
    __syncthreads();
    for (std::uint32_t i = threadIdx.x; i < 16 * 64; i += blockDim.x) words[i / 64][i % 64] = round * 16 * 64 + i;
    ptx::fence_async_shared();
    __syncthreads();
    if (threadIdx.x < 16) {
      ptx::bulk_store(to + (round * 16 + threadIdx.x) * 64, words[threadIdx.x], sizeof words[0]);
    }
  }
  ptx::wait_for_bulk_stores();
}

TEST(BulkStore, RowsThroughTheSameMemoryTwice) {
  const DeviceMemory memory(2 * 16 * 64 * 4);
  store_in_bulk<<<1, 128>>>(static_cast<std::uint32_t*>(memory.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  const auto words = downloaded<std::uint32_t>(memory);
  for (std::size_t i = 0; i < words.size(); ++i) ASSERT_EQ(words[i], i);
}

// A lane a row, as the other way round; rows that this kernel wrote itself.
__global__ void load_in_bulk(std::uint32_t* from, std::uint32_t* to) {
  __shared__ alignas(16) std::uint32_t words[16][64];
  __shared__ ptx::Barrier landed;
  if (threadIdx.x == 0) {
    landed.init(1);
    ptx::fence_barrier_init();
  }
  __syncthreads();
  for (std::uint32_t round = 0; round < 2; ++round) {
    for (std::uint32_t i = threadIdx.x; i < 16 * 64; i += blockDim.x) from[i] = (round + 1) * 10000 + i;
    __syncthreads();
    if (threadIdx.x == 0) landed.arrive_expecting(sizeof words);
    __syncthreads();
    if (threadIdx.x < 16) {
      ptx::fence_async_global();
      ptx::bulk_load(words[threadIdx.x], from + threadIdx.x * 64, sizeof words[0], landed);
    }
    landed.wait(round & 1);
    for (std::uint32_t i = threadIdx.x; i < 16 * 64; i += blockDim.x) to[round * 16 * 64 + i] = words[i / 64][i % 64];
    __syncthreads();
  }
}

TEST(BulkLoad, RowsThroughTheSameMemoryTwice) {
  const DeviceMemory from(16 * 64 * 4), to(2 * 16 * 64 * 4);
  load_in_bulk<<<1, 128>>>(static_cast<std::uint32_t*>(from.data()), static_cast<std::uint32_t*>(to.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  const auto words = downloaded<std::uint32_t>(to);
  for (std::size_t i = 0; i < words.size(); ++i) ASSERT_EQ(words[i], (i / 1024 + 1) * 10000 + i % 1024);
}

// ---- single values -------------------------------------------------------------------------------------------------

__global__ void raise_two(const float* exponents, float* powers) {
  powers[threadIdx.x] = ptx::exp2_approx(exponents[threadIdx.x]);
}

// Exact at integers; what is too small, subnormal results among it, is 0.
TEST(Exp2, IsExactAtIntegers) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> exponents, powers;
  for (int n = -126; n <= 127; ++n) exponents.push_back(static_cast<float>(n)), powers.push_back(std::ldexp(1.f, n));
  for (const float small : {-127.f, -149.f, -150.f, -1e30f, -kInf}) exponents.push_back(small), powers.push_back(0.f);
  for (const float large : {128.f, 1e30f, kInf}) exponents.push_back(large), powers.push_back(kInf);
  exponents.push_back(-0.f), powers.push_back(1.f);
  exponents.push_back(kNan);
  const DeviceMemory from = uploaded(exponents), to(from.bytes());
  raise_two<<<1, static_cast<unsigned>(exponents.size())>>>(static_cast<const float*>(from.data()),
                                                            static_cast<float*>(to.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  auto found = downloaded<float>(to);
  EXPECT_TRUE(std::isnan(found.back())) << found.back();
  found.pop_back();
  EXPECT_EQ(found, powers);
}

struct Passed {  // [threads]
  int *opaque, *made_here, *uniform, *prefetched;
};

__global__ void pass_values(const int* values, Passed to) {
  const int i = static_cast<int>(threadIdx.x);
  ptx::prefetch_l2(values + i);
  to.opaque[i] = ptx::opaque(values[i]);
  to.made_here[i] = *ptx::made_here(values + i);
  to.uniform[i] = ptx::uniform(values[i / 32 * 32]);
  to.prefetched[i] = values[i];
}

// What only the compiler or the caches are to know about changes no value.
TEST(Values, PassUnchanged) {
  std::vector<int> values, of_warp;
  for (int i = 0; i < 256; ++i) values.push_back(i * 1000003 - 7);
  values[0] = INT_MIN, values[32] = INT_MAX, values[64] = -1;
  for (std::size_t i = 0; i < values.size(); ++i) of_warp.push_back(values[i / 32 * 32]);
  const DeviceMemory from = uploaded(values);
  const DeviceMemory opaque(from.bytes()), made_here(from.bytes()), uniform(from.bytes()), prefetched(from.bytes());
  pass_values<<<1, 256>>>(static_cast<const int*>(from.data()),
                          {static_cast<int*>(opaque.data()), static_cast<int*>(made_here.data()),
                           static_cast<int*>(uniform.data()), static_cast<int*>(prefetched.data())});
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  EXPECT_EQ(downloaded<int>(opaque), values);
  EXPECT_EQ(downloaded<int>(made_here), values);
  EXPECT_EQ(downloaded<int>(uniform), of_warp);
  EXPECT_EQ(downloaded<int>(prefetched), values);
}

}  // namespace
}  // namespace flash_mla::test
