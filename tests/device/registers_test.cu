// Registers that warpgroups hand to one another (raise_registers, lower_registers of cuda/ptx/warpgroup.h): what a
// thread has in registers stays, before, while and after others take theirs.
#include <gtest/gtest.h>

#include <vector>

#include "cuda/ptx/warpgroup.h"
#include "device/gpu.h"

namespace flash_mla::test {
namespace {

constexpr int kThreads = 512, kLaunchRegisters = 65536 / kThreads;
constexpr int kEarly = 8, kMost = 192;  // integers of a thread

// Registers of each warpgroup, and how many integers it holds in them.
struct Share {
  int registers, integers;
};
constexpr Share kShares[4] = {{24, 10}, {48, 24}, {232, kMost}, {200, 160}};
static_assert(kShares[0].registers + kShares[1].registers + kShares[2].registers + kShares[3].registers <=
              4 * kLaunchRegisters);

// Loads are volatile, so that integers are where they were loaded to when they are summed.
template <int First, int Count>
__device__ __forceinline__ void load(const volatile int* from, int (&to)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) to[i] = from[(First + i) * kThreads];
}
template <int First, int Count>
__device__ __forceinline__ int weighed(const int (&values)[Count]) {
  int sum = 0;
#pragma unroll
  for (int i = 0; i < Count; ++i) sum += (First + i + 1) * values[i];
  return sum;
}

// Each thread sums once all hold theirs.
template <int Warpgroup>
__device__ __forceinline__ int hold(const volatile int* from, const int (&early)[kEarly]) {
  constexpr Share kShare = kShares[Warpgroup];
  if constexpr (kShare.registers < kLaunchRegisters)
    ptx::lower_registers<kShare.registers>();
  else
    ptx::raise_registers<kShare.registers>();
  int late[kShare.integers - kEarly];
  load<kEarly>(from, late);
  ptx::sync_threads(1, kThreads);
  return weighed<0>(early) + weighed<kEarly>(late);
}

// from: [kMost, kThreads]
__global__ void __launch_bounds__(kThreads, 1) share_registers(const volatile int* from, int* sums) {
  from += threadIdx.x;
  int early[kEarly];
  load<0>(from, early);
  switch (ptx::uniform(static_cast<int>(threadIdx.x) / 128)) {
    case 0:
      sums[threadIdx.x] = hold<0>(from, early);
      break;
    case 1:
      sums[threadIdx.x] = hold<1>(from, early);
      break;
    case 2:
      sums[threadIdx.x] = hold<2>(from, early);
      break;
    default:
      sums[threadIdx.x] = hold<3>(from, early);
      break;
  }
}

TEST(Registers, KeepTheirValuesWhileOthersTakeTheirs) {
  std::vector<int> values;
  for (int i = 0; i < kMost * kThreads; ++i) values.push_back(i * 37 % 10007 - 5000);
  std::vector<int> expected;
  for (int thread = 0; thread < kThreads; ++thread) {
    int sum = 0;
    for (int i = 0; i < kShares[thread / 128].integers; ++i)
      sum += (i + 1) * values[static_cast<std::size_t>(i * kThreads + thread)];
    expected.push_back(sum);
  }
  const DeviceMemory from = uploaded(values), sums(kThreads * 4);
  // More thread blocks than fit at a time: each begins anew with what the launch gives it.
  share_registers<<<500, kThreads>>>(static_cast<const int*>(from.data()), static_cast<int*>(sums.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  EXPECT_EQ(downloaded<int>(sums), expected);
}

}  // namespace
}  // namespace flash_mla::test
