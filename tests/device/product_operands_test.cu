// What a warpgroup's product sees of an operand that its own warps have just written to shared memory.
//
// Stores must be fenced: else the product reads what was there before whenever other warps keep shared memory busy. It
// need not be preceded by a barrier, for it begins when all four warps have come to it; PTX does not promise that, so
// the kernels have a barrier there, and this shows why no test notices when it is left out (docs/conventions.md).
#include <cuda_bf16.h>
#include <gtest/gtest.h>

#include <cstdint>

#include "cuda/ptx/fence.h"
#include "cuda/ptx/shared_address.h"
#include "cuda/ptx/warpgroup.h"
#include "cuda/ptx/wgmma.h"
#include "cuda/tile/descriptor.h"
#include "cuda/tile/swizzle.h"
#include "device/gpu.h"

namespace flash_mla::test {
namespace {

constexpr int kColumns = 128, kSteps = 4, kWarpRows = 64 / 4, kSlices = kColumns / 64, kSliceBytes = 64 * 128;
constexpr std::uint32_t kOnes = 0x3f803f80, kNans = 0x7fc07fc0;  // pairs of bf16

__device__ void fill_own_rows(unsigned char* v, std::uint32_t pair) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int slice = 0; slice < kSlices; ++slice) {
    auto* rows = reinterpret_cast<uint4*>(v + slice * kSliceBytes + warp * kWarpRows * 128);
    for (int i = lane; i < kWarpRows * 128 / 16; i += 32) rows[i] = uint4{pair, pair, pair, pair};
  }
}

// Elements of 1 [64 x 64] V that are not 64.
__device__ int mistakes_of_product(const unsigned char* v) {
  const std::uint64_t descriptor = tile::mn_major(ptx::shared_address(v), kSliceBytes);
  const std::uint32_t ones[4] = {kOnes, kOnes, kOnes, kOnes};
  float d[kColumns / 2];
  ptx::warpgroup_fence();
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    ptx::Wgmma<__nv_bfloat16, kColumns, ptx::Major::mn>::mma(
        d, ones, tile::advance(descriptor, tile::mn_major_step_bytes(step)), step > 0);
  }
  ptx::warpgroup_commit();
  ptx::warpgroup_wait<0>();
  int mistakes = 0;
#pragma unroll
  for (const float x : d) mistakes += x != 64.f;
  return mistakes;
}

// V is NaN; then each warp writes ones to its quarter and multiplies, without a barrier between. One warp is late, in
// turn; if it is to `miss` the product, it does not write.
__global__ void multiply_with_a_late_warp(int rounds, unsigned longest_sleep_ns, bool miss, int* wrong) {
  __shared__ alignas(1024) unsigned char v[kSlices * kSliceBytes];
  const int warp = threadIdx.x / 32;
  int mistakes = 0;
  for (int round = 0; round < rounds; ++round) {
    fill_own_rows(v, kNans);
    __syncthreads();
    const bool late = warp == (round + static_cast<int>(blockIdx.x)) % 4;
    if (late) __nanosleep(1 + (round * 977u + blockIdx.x * 331u) % longest_sleep_ns);
    if (!late || !miss) fill_own_rows(v, kOnes);
    ptx::fence_async_shared();
    mistakes += mistakes_of_product(v);
    __syncthreads();
  }
  atomicAdd(wrong, mistakes);
}

// The first warpgroup writes V, meets and multiplies, while the others read shared memory, all lanes from one bank.
__global__ void multiply_among_readers(int rounds, bool fenced, int* wrong) {
  __shared__ alignas(1024) unsigned char v[kSlices * kSliceBytes];
  __shared__ volatile std::uint32_t words[32 * 32];
  __shared__ volatile bool done;
  if (threadIdx.x == 0) done = false;
  for (int i = threadIdx.x; i < 32 * 32; i += blockDim.x) words[i] = 0;
  __syncthreads();
  if (threadIdx.x >= 128) {
    for (std::uint32_t i = 0; !done; ++i) static_cast<void>(words[(threadIdx.x * 32 + i) % (32 * 32)]);
    return;
  }
  int mistakes = 0;
  for (int round = 0; round < rounds; ++round) {
    fill_own_rows(v, kNans);
    ptx::fence_async_shared();
    ptx::sync_threads(1, 128);
    fill_own_rows(v, kOnes);
    if (fenced) ptx::fence_async_shared();
    ptx::sync_threads(1, 128);
    mistakes += mistakes_of_product(v);
    ptx::sync_threads(1, 128);
  }
  if (threadIdx.x == 0) done = true;
  atomicAdd(wrong, mistakes);
}

template <class Launch>
int mistakes_of(Launch launch) {
  DeviceMemory wrong(4);
  wrong.fill(0);
  launch(static_cast<int*>(wrong.data()));
  FLASH_MLA_REQUIRE(cudaGetLastError());
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  return downloaded<int>(wrong)[0];
}

TEST(ProductOperands, TheProductWaitsForAllWarpsOfItsWarpgroup) {
  for (const unsigned sleep_ns : {200u, 2000u, 20000u}) {
    EXPECT_EQ(mistakes_of([&](int* wrong) { multiply_with_a_late_warp<<<132, 128>>>(100, sleep_ns, false, wrong); }), 0)
        << sleep_ns;
  }
  const int all = 4 * 8 * 64 * kColumns;
  EXPECT_EQ(mistakes_of([](int* wrong) { multiply_with_a_late_warp<<<4, 128>>>(8, 200, true, wrong); }), all);
}

// What becomes of unfenced stores is left to the hardware: recorded, not asked for.
TEST(ProductOperands, FencedStoresAreSeen) {
  EXPECT_EQ(mistakes_of([](int* wrong) { multiply_among_readers<<<132, 512>>>(1000, true, wrong); }), 0);
  RecordProperty("unfenced", mistakes_of([](int* wrong) { multiply_among_readers<<<132, 512>>>(1000, false, wrong); }));
}

}  // namespace
}  // namespace flash_mla::test
