// Products of a warpgroup (cuda/ptx/wgmma.h) of operands that lie as cuda/tile says, with integers, so that answers are
// exact: all sizes and layouts that kernels use, at both ends of shared memory, and several groups in flight.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "cuda/ptx/matrix.h"
#include "cuda/ptx/wgmma.h"
#include "cuda/tile/accumulator.h"
#include "device/gpu.h"
#include "device/products.cuh"

namespace flash_mla::test {
namespace {

using ptx::Major;

constexpr int kMostSharedBytes = 227 << 10;  // of a thread block

enum class Operand { shared, registers };

// d [64 x N] = a [64 x 64] b [64 x N].
template <class Element, int N, Major BMajor, Operand A, Major AMajor>
__global__ void multiply(const Element* a, const Element* b, int first_byte, float* d) {
  extern __shared__ __align__(1024) unsigned char memory[];
  const Operands<Element, N, BMajor, AMajor> operands(memory + first_byte, a, b);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float acc[N / 2];
#pragma unroll
  for (float& x : acc) x = 1e9f;  // the first product must not accumulate
  if constexpr (A == Operand::shared) {
    multiply_from_shared(operands, acc);
  } else {
    std::uint32_t fragment[kProductSteps][4];
#pragma unroll
    for (int step = 0; step < kProductSteps; ++step) {
      ptx::load_matrix_x4(operands.a_slice() + tile::fragment_bytes(warp, lane, step), fragment[step]);
    }
    ptx::warpgroup_fence();
#pragma unroll
    for (int step = 0; step < kProductSteps; ++step) {
      ptx::Wgmma<Element, N, BMajor>::mma(acc, fragment[step], operands.b(step), step > 0);
    }
    ptx::warpgroup_commit();
    ptx::warpgroup_wait<0>();
  }
#pragma unroll
  for (int i = 0; i < N / 2; ++i)
    d[tile::accumulator_row(warp, lane, i) * N + tile::accumulator_column(lane, i)] = acc[i];
}

int a_value(int m, int k) { return (m * 7 + k * 3) % 11 - 5; }
int b_value(int k, int n) { return (k * 5 + n * 2) % 13 - 6; }

template <class Element>
DeviceMemory operand_a() {
  std::vector<Element> a;
  for (int i = 0; i < kSlice; ++i) a.push_back(static_cast<Element>(static_cast<float>(a_value(i / 64, i % 64))));
  return uploaded(a);
}
template <class Element, int N, Major BMajor>
DeviceMemory operand_b() {
  std::vector<Element> b;
  for (int i = 0; i < 64 * N; ++i) {
    const int value = BMajor == Major::k ? b_value(i % 64, i / 64) : b_value(i / N, i % N);
    b.push_back(static_cast<Element>(static_cast<float>(value)));
  }
  return uploaded(b);
}
// Of a and the first k rows of b.
int product_value(int m, int n, int end) {
  int sum = 0;
  for (int k = 0; k < end; ++k) sum += a_value(m, k) * b_value(k, n);
  return sum;
}

template <class Element, int N, Major BMajor, Operand A, Major AMajor = Major::k>
void check_product() {
  const DeviceMemory a = operand_a<Element>(), b = operand_b<Element, N, BMajor>();
  DeviceMemory product(64 * N * 4);
  const auto kernel = multiply<Element, N, BMajor, A, AMajor>;
  FLASH_MLA_REQUIRE(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMostSharedBytes));
  constexpr int kLastByte = (kMostSharedBytes - Operands<Element, N, BMajor, AMajor>::kBytes) & ~1023;
  for (const int first_byte : {0, kLastByte}) {
    product.fill(0xff);
    kernel<<<1, 128, kMostSharedBytes>>>(static_cast<const Element*>(a.data()), static_cast<const Element*>(b.data()),
                                         first_byte, static_cast<float*>(product.data()));
    FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
    const auto d = downloaded<float>(product);
    for (int m = 0; m < 64; ++m)
      for (int n = 0; n < N; ++n)
        ASSERT_EQ(d[static_cast<std::size_t>(m * N + n)], static_cast<float>(product_value(m, n, 64)))
            << "m " << m << " n " << n << " at " << first_byte;
  }
}

template <class Element>
class Products : public testing::Test {};
using Elements = testing::Types<__nv_bfloat16, __half>;
TYPED_TEST_SUITE(Products, Elements);

TYPED_TEST(Products, Scores16FromShared) { check_product<TypeParam, 16, Major::k, Operand::shared>(); }
TYPED_TEST(Products, TransposedValues16FromShared) {
  check_product<TypeParam, 16, Major::k, Operand::shared, Major::mn>();
}
TYPED_TEST(Products, Scores32FromShared) { check_product<TypeParam, 32, Major::k, Operand::shared>(); }
TYPED_TEST(Products, TransposedValues32FromShared) {
  check_product<TypeParam, 32, Major::k, Operand::shared, Major::mn>();
}
TYPED_TEST(Products, ScoresFromShared) { check_product<TypeParam, 64, Major::k, Operand::shared>(); }
TYPED_TEST(Products, ScoresFromRegisters) { check_product<TypeParam, 64, Major::k, Operand::registers>(); }
TYPED_TEST(Products, Values128FromShared) { check_product<TypeParam, 128, Major::mn, Operand::shared>(); }
TYPED_TEST(Products, Values128FromRegisters) { check_product<TypeParam, 128, Major::mn, Operand::registers>(); }
TYPED_TEST(Products, Values256FromRegisters) { check_product<TypeParam, 256, Major::mn, Operand::registers>(); }

// ---- groups in flight ----------------------------------------------------------------------------------------------

constexpr int kGroups = 4, kColumns = 16, kTimes = 8;

__device__ float* group_of(float* d, int group, int i) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  return d + (group * 64 + tile::accumulator_row(warp, lane, i)) * kColumns + tile::accumulator_column(lane, i);
}

template <int Group>
__device__ __forceinline__ void write_group(const float (&acc)[kGroups][kColumns / 2], float* d) {
  ptx::warpgroup_wait<kGroups - 1 - Group>();
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) *group_of(d, Group, i) = acc[Group][i];
  __syncthreads();  // the compiler is not to put this behind the next wait
}

// Adds to d of group g kTimes the product of a and the first 16 (g + 1) rows of b. Each is read when no later one need
// be done.
__global__ void multiply_in_groups(const __nv_bfloat16* a, const __nv_bfloat16* b, float* d) {
  extern __shared__ __align__(1024) unsigned char memory[];
  const Operands<__nv_bfloat16, kColumns, Major::k, Major::k> operands(memory, a, b);
  float acc[kGroups][kColumns / 2];
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) acc[group][i] = *group_of(d, group, i);
  }
  ptx::warpgroup_fence();
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
#pragma unroll
    for (int i = 0; i < kTimes * (group + 1); ++i) {
      const int step = i % (group + 1);
      ptx::Wgmma<__nv_bfloat16, kColumns, Major::k>::mma(acc[group], operands.a(step), operands.b(step), true);
    }
    ptx::warpgroup_commit();
  }
  write_group<0>(acc, d);
  write_group<1>(acc, d);
  write_group<2>(acc, d);
  write_group<3>(acc, d);
}

TEST(ProductGroups, AreDoneInOrder) {
  const DeviceMemory a = operand_a<__nv_bfloat16>(), b = operand_b<__nv_bfloat16, kColumns, Major::k>();
  std::vector<float> before;
  for (int i = 0; i < kGroups * 64 * kColumns; ++i) before.push_back(static_cast<float>(i));
  const DeviceMemory sums = uploaded(before);
  multiply_in_groups<<<1, 128, Operands<__nv_bfloat16, kColumns, Major::k, Major::k>::kBytes>>>(
      static_cast<const __nv_bfloat16*>(a.data()), static_cast<const __nv_bfloat16*>(b.data()),
      static_cast<float*>(sums.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  const auto d = downloaded<float>(sums);
  for (int i = 0; i < kGroups * 64 * kColumns; ++i) {
    const int group = i / (64 * kColumns), m = i / kColumns % 64, n = i % kColumns;
    ASSERT_EQ(d[static_cast<std::size_t>(i)],
              static_cast<float>(i + kTimes * product_value(m, n, tile::kStepK * (group + 1))))
        << "group " << group << " m " << m << " n " << n;
  }
}

}  // namespace
}  // namespace flash_mla::test
