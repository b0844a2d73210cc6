// When does a warpgroup's product begin? Each warp writes a quarter of V and goes on to the product without a barrier;
// one of them, in turn, is late. If the product waits for all four warps, it sees everything that each of them wrote
// and fenced before. PTX does not promise that, so the kernels have a barrier there; this shows why no test notices
// when it is left out (docs/conventions.md).
#include <cuda_bf16.h>
#include <gtest/gtest.h>

#include <cstdint>

#include "cuda/ptx/fence.h"
#include "cuda/ptx/shared_address.h"
#include "cuda/ptx/wgmma.h"
#include "cuda/tile/descriptor.h"
#include "cuda/tile/swizzle.h"
#include "device/gpu.h"

namespace flash_mla::test {
namespace {

constexpr int kColumns = 128, kSteps = 4, kWarpRows = 64 / 4, kSlices = kColumns / 64, kSliceBytes = 64 * 128;
constexpr std::uint32_t kOnes = 0x3f803f80, kNans = 0x7fc07fc0;  // pairs of bf16
constexpr auto kTransposed = ptx::Major::mn;

struct Lateness {
  unsigned sleep_ns;
  bool writes_after_product;  // the late warp, so that the product must go wrong
};

__device__ void fill_own_rows(unsigned char* v, std::uint32_t pair) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int slice = 0; slice < kSlices; ++slice) {
    auto* rows = reinterpret_cast<uint4*>(v + slice * kSliceBytes + warp * kWarpRows * 128);
    for (int i = lane; i < kWarpRows * 128 / 16; i += 32) rows[i] = uint4{pair, pair, pair, pair};
  }
}

// d = 1 [64 x 64] V, where V is 1 once all have written and NaN before; counts elements that are not 64.
__global__ void multiply_rows_of_a_late_warp(int rounds, Lateness lateness, int* wrong) {
  __shared__ alignas(1024) unsigned char v[kSlices * kSliceBytes];
  const int warp = threadIdx.x / 32;
  const std::uint64_t descriptor = tile::mn_major(ptx::shared_address(v), kSliceBytes);
  const std::uint32_t ones[4] = {kOnes, kOnes, kOnes, kOnes};
  int mistakes = 0;
  for (int round = 0; round < rounds; ++round) {
    fill_own_rows(v, kNans);
    ptx::fence_async_shared();
    __syncthreads();
    const bool late = warp == (round + static_cast<int>(blockIdx.x)) % 4;
    if (late) __nanosleep(1 + (round * 977u + blockIdx.x * 331u) % lateness.sleep_ns);
    if (!late || !lateness.writes_after_product) fill_own_rows(v, kOnes);
    ptx::fence_async_shared();
    float d[kColumns / 2];
    ptx::warpgroup_fence();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      ptx::Wgmma<__nv_bfloat16, kColumns, kTransposed>::mma(
          d, ones, tile::advance(descriptor, tile::mn_major_step_bytes(step)), step > 0);
    }
    ptx::warpgroup_commit();
    ptx::warpgroup_wait<0>();
#pragma unroll
    for (const float x : d) mistakes += x != 64.f;
    __syncthreads();
  }
  atomicAdd(wrong, mistakes);
}

int elements_wrong(int thread_blocks, int rounds, const Lateness& lateness) {
  DeviceMemory wrong(4);
  wrong.fill(0);
  multiply_rows_of_a_late_warp<<<thread_blocks, 128>>>(rounds, lateness, static_cast<int*>(wrong.data()));
  FLASH_MLA_REQUIRE(cudaGetLastError());
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  return downloaded<int>(wrong)[0];
}

TEST(ProductStart, WaitsForAllWarpsOfTheWarpgroup) {
  for (const unsigned sleep_ns : {200u, 2000u, 20000u}) {
    EXPECT_EQ(elements_wrong(132, 100, {.sleep_ns = sleep_ns, .writes_after_product = false}), 0) << sleep_ns;
  }
}

// The test can fail: rows that are written too late are seen.
TEST(ProductStart, RowsWrittenAfterTheProductAreMissed) {
  EXPECT_EQ(elements_wrong(4, 8, {.sleep_ns = 200, .writes_after_product = true}), 4 * 8 * 64 * kColumns);
}

}  // namespace
}  // namespace flash_mla::test
