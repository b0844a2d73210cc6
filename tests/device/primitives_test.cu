// The wrappers of cuda/ptx and the layouts of cuda/tile on the chip, with integer-valued data whose answers are exact.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "cuda/ptx/bulk_copy.h"
#include "cuda/ptx/fence.h"
#include "cuda/ptx/matrix.h"
#include "cuda/ptx/mbarrier.h"
#include "cuda/ptx/warpgroup.h"
#include "cuda/ptx/wgmma.h"
#include "cuda/tile/accumulator.h"
#include "cuda/tile/descriptor.h"
#include "cuda/tile/swizzle.h"
#include "device/gpu.h"

namespace flash_mla::test {
namespace {

constexpr int kSlice = 64 * 64;  // elements
constexpr int kSliceBytes = kSlice * 2;

// ---- wgmma ---------------------------------------------------------------------------------------------------------

enum class Operand { shared, registers };

// d [64 x N] = a [64 x 64] b, with b given as rows of n (k-major) or rows of k (n-major) in slices; a's slice holds
// rows of m (k-major) or of k (m-major).
template <class Element, int N, ptx::Major BMajor, Operand A, ptx::Major AMajor>
__global__ void multiply(const Element* a, const Element* b, float* d) {
  extern __shared__ __align__(1024) unsigned char memory[];
  unsigned char* a_slice = memory;
  unsigned char* b_slices = memory + kSliceBytes;
  constexpr bool kKMajor = BMajor == ptx::Major::k;
  constexpr int kBRows = kKMajor ? N : 64, kBSlices = kKMajor ? 1 : N / 64, kBSliceBytes = kBRows * 128;
  for (int i = threadIdx.x; i < kSlice; i += blockDim.x) {
    const int m = i / 64, k = i % 64;
    const int at = AMajor == ptx::Major::k ? tile::swizzled_bytes(m, k) : tile::swizzled_bytes(k, m);
    *reinterpret_cast<Element*>(a_slice + at) = a[i];
  }
  for (int i = threadIdx.x; i < kBRows * kBSlices * 64; i += blockDim.x) {
    const int row = i / (kBSlices * 64), column = i % (kBSlices * 64);
    *reinterpret_cast<Element*>(b_slices + column / 64 * kBSliceBytes + tile::swizzled_bytes(row, column % 64)) = b[i];
  }
  ptx::fence_async_shared();
  __syncthreads();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const auto a_address = static_cast<std::uint32_t>(__cvta_generic_to_shared(a_slice));
  const auto b_address = static_cast<std::uint32_t>(__cvta_generic_to_shared(b_slices));
  const std::uint64_t a_descriptor =
      AMajor == ptx::Major::k ? tile::k_major(a_address) : tile::mn_major(a_address, kSliceBytes);
  const std::uint64_t b_descriptor = kKMajor ? tile::k_major(b_address) : tile::mn_major(b_address, kBSliceBytes);
  std::uint32_t fragment[4][4];
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    ptx::load_matrix_x4(a_slice + tile::fragment_bytes(warp, lane, step), fragment[step]);
  }
  float acc[N / 2];
#pragma unroll
  for (float& x : acc) x = 1e9f;  // the first product must not accumulate
  ptx::warpgroup_fence();
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    const std::uint64_t b_step =
        tile::advance(b_descriptor, kKMajor ? tile::k_major_step_bytes(step) : tile::mn_major_step_bytes(step));
    if constexpr (A == Operand::registers) {
      ptx::Wgmma<Element, N, BMajor>::mma(acc, fragment[step], b_step, step > 0);
    } else {
      const int a_step = AMajor == ptx::Major::k ? tile::k_major_step_bytes(step) : tile::mn_major_step_bytes(step);
      ptx::Wgmma<Element, N, BMajor, AMajor>::mma(acc, tile::advance(a_descriptor, a_step), b_step, step > 0);
    }
  }
  ptx::warpgroup_commit();
  ptx::warpgroup_wait<0>();
#pragma unroll
  for (int i = 0; i < N / 2; ++i)
    d[tile::accumulator_row(warp, lane, i) * N + tile::accumulator_column(lane, i)] = acc[i];
}

template <class Element, int N, ptx::Major BMajor, Operand A, ptx::Major AMajor = ptx::Major::k>
void check_product() {
  constexpr bool kKMajor = BMajor == ptx::Major::k;
  const auto a_value = [](int m, int k) { return (m * 7 + k * 3) % 11 - 5; };
  const auto b_value = [](int k, int n) { return (k * 5 + n * 2) % 13 - 6; };
  std::vector<Element> a, b;
  for (int m = 0; m < 64; ++m)
    for (int k = 0; k < 64; ++k) a.push_back(static_cast<Element>(static_cast<float>(a_value(m, k))));
  for (int i = 0; i < (kKMajor ? N : 64); ++i)
    for (int j = 0; j < (kKMajor ? 64 : N); ++j) {
      b.push_back(static_cast<Element>(static_cast<float>(kKMajor ? b_value(j, i) : b_value(i, j))));
    }
  const DeviceMemory device_a = uploaded(a), device_b = uploaded(b), device_d(64 * N * 4);
  const auto kernel = multiply<Element, N, BMajor, A, AMajor>;
  constexpr int kBytes = kSliceBytes + N * 64 * 2;
  FLASH_MLA_REQUIRE(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  kernel<<<1, 128, kBytes>>>(static_cast<const Element*>(device_a.data()), static_cast<const Element*>(device_b.data()),
                             static_cast<float*>(device_d.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  const auto d = downloaded<float>(device_d);
  for (int m = 0; m < 64; ++m)
    for (int n = 0; n < N; ++n) {
      int want = 0;
      for (int k = 0; k < 64; ++k) want += a_value(m, k) * b_value(k, n);
      ASSERT_EQ(d[static_cast<std::size_t>(m * N + n)], static_cast<float>(want)) << "m " << m << " n " << n;
    }
}

template <class Element>
class Products : public testing::Test {};
using Elements = testing::Types<__nv_bfloat16, __half>;
TYPED_TEST_SUITE(Products, Elements);

TYPED_TEST(Products, Scores16FromShared) { check_product<TypeParam, 16, ptx::Major::k, Operand::shared>(); }
TYPED_TEST(Products, TransposedValues16FromShared) {
  check_product<TypeParam, 16, ptx::Major::k, Operand::shared, ptx::Major::mn>();
}
TYPED_TEST(Products, Scores32FromShared) { check_product<TypeParam, 32, ptx::Major::k, Operand::shared>(); }
TYPED_TEST(Products, TransposedValues32FromShared) {
  check_product<TypeParam, 32, ptx::Major::k, Operand::shared, ptx::Major::mn>();
}
TYPED_TEST(Products, ScoresFromShared) { check_product<TypeParam, 64, ptx::Major::k, Operand::shared>(); }
TYPED_TEST(Products, ScoresFromRegisters) { check_product<TypeParam, 64, ptx::Major::k, Operand::registers>(); }
TYPED_TEST(Products, Values128FromShared) { check_product<TypeParam, 128, ptx::Major::mn, Operand::shared>(); }
TYPED_TEST(Products, Values128FromRegisters) { check_product<TypeParam, 128, ptx::Major::mn, Operand::registers>(); }
TYPED_TEST(Products, Values256FromRegisters) { check_product<TypeParam, 256, ptx::Major::mn, Operand::registers>(); }

// ---- matrices, barriers --------------------------------------------------------------------------------------------

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

// Warps 0-3 hand a counter to warps 4-7 and back, alternately through named barriers and mbarriers.
__global__ void hand_over(int rounds, int* mistakes) {
  __shared__ volatile int value;
  __shared__ ptx::Barrier there, back;
  if (threadIdx.x == 0) {
    value = 0;
    there.init(4);
    back.init(4);
    ptx::fence_barrier_init();
  }
  __syncthreads();
  const bool giver = threadIdx.x < 128;
  for (int i = 0; i < rounds; ++i) {
    if (giver) {
      if (threadIdx.x == 0) value = i + 1;
      __syncwarp();
      ptx::arrive_threads(1, 256);
      if (threadIdx.x % 32 == 0) there.arrive();
      back.wait(i & 1);
    } else {
      ptx::sync_threads(1, 256);
      if (value != i + 1) atomicAdd(mistakes, 1);
      there.wait(i & 1);
      if (value != i + 1) atomicAdd(mistakes, 1);
      __syncwarp();
      if (ptx::elect_one()) back.arrive();
    }
  }
}

TEST(Barriers, HandOver) {
  DeviceMemory mistakes(4);
  mistakes.fill(0);
  hand_over<<<4, 256>>>(2000, static_cast<int*>(mistakes.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  EXPECT_EQ(downloaded<int>(mistakes)[0], 0);
}

}  // namespace
}  // namespace flash_mla::test
