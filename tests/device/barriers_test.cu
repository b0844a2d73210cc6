// Barriers of a thread block (cuda/ptx/mbarrier.h, warpgroup.h): what one side wrote before it arrived is what the
// other reads after it waited, and a phase is over when all arrivals and announced bytes have come and not before.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "cuda/ptx/bulk_copy.h"
#include "cuda/ptx/fence.h"
#include "cuda/ptx/mbarrier.h"
#include "cuda/ptx/warpgroup.h"
#include "device/gpu.h"
#include "device/patience.cuh"

namespace flash_mla::test {
namespace {

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
      if (threadIdx.x % 32 == 0) back.arrive();
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

// The same, by looks instead of waits.
__global__ void hand_over_by_looks(int rounds, int* mistakes) {
  __shared__ volatile int value;
  __shared__ ptx::Barrier there, back;
  if (threadIdx.x == 0) {
    value = 0;
    there.init(1);
    back.init(1);
    ptx::fence_barrier_init();
  }
  __syncthreads();
  if (threadIdx.x % 32 != 0) return;
  const Patience patience;
  for (int i = 0; i < rounds; ++i) {
    if (threadIdx.x == 0) {
      value = i + 1;
      there.arrive();
      while (!back.completed(i & 1) && patience.left()) {
      }
    } else {
      while (!there.completed(i & 1) && patience.left()) {
      }
      if (value != i + 1) atomicAdd(mistakes, 1);
      back.arrive();
    }
  }
  if (!patience.left()) atomicAdd(mistakes, 1);
}

TEST(Barriers, HandOverByLooks) {
  DeviceMemory mistakes(4);
  mistakes.fill(0);
  hand_over_by_looks<<<4, 64>>>(2000, static_cast<int*>(mistakes.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  EXPECT_EQ(downloaded<int>(mistakes)[0], 0);
}

// Bit p: the last phase of parity p has completed.
__device__ int look(ptx::Barrier& barrier) { return (barrier.completed(0) ? 1 : 0) | (barrier.completed(1) ? 2 : 0); }

constexpr int kPhases = 4, kArrivals = 3;

// By one thread: before each arrival, and at the end.
__global__ void look_at_arrivals(int* looks) {
  __shared__ ptx::Barrier barrier;
  barrier.init(kArrivals);
  ptx::fence_barrier_init();
  for (int i = 0; i < kPhases * kArrivals; ++i) {
    looks[i] = look(barrier);
    barrier.arrive();
  }
  looks[kPhases * kArrivals] = look(barrier);
}

// The phase that goes on has not completed, whatever its arrivals; the one before, of the other parity, has.
TEST(Barriers, APhaseEndsWithItsLastArrival) {
  const DeviceMemory looks((kPhases * kArrivals + 1) * 4);
  look_at_arrivals<<<1, 1>>>(static_cast<int*>(looks.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  std::vector<int> expected;
  for (int i = 0; i <= kPhases * kArrivals; ++i) expected.push_back(i / kArrivals % 2 == 0 ? 2 : 1);
  EXPECT_EQ(downloaded<int>(looks), expected);
}

// By one thread: with the arrival alone, with half of the bytes too, with all of them; and the words that came.
__global__ void look_at_bytes(const int* from, int* looks, int* words) {
  __shared__ alignas(16) int landed[8];
  __shared__ ptx::Barrier barrier, half;
  barrier.init(1);
  half.init(1);
  ptx::fence_barrier_init();
  barrier.arrive_expecting(sizeof landed);
  looks[0] = look(barrier);
  ptx::bulk_load(landed, from, sizeof landed / 2, barrier);
  half.arrive_expecting(sizeof landed / 2);  // the same half once more, to know about when the first has come
  ptx::bulk_load(landed, from, sizeof landed / 2, half);
  half.wait(0);
  looks[1] = look(barrier);
  ptx::bulk_load(landed + 4, from + 4, sizeof landed / 2, barrier);
  barrier.wait(0);
  looks[2] = look(barrier);
  for (int i = 0; i < 8; ++i) words[i] = landed[i];
}

TEST(Barriers, APhaseEndsWithItsLastByte) {
  const std::vector<int> values = {3, 1, 4, 1, 5, 9, 2, 6};
  const DeviceMemory from = uploaded(values), looks(3 * 4), words(from.bytes());
  look_at_bytes<<<1, 1>>>(static_cast<const int*>(from.data()), static_cast<int*>(looks.data()),
                          static_cast<int*>(words.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  EXPECT_EQ(downloaded<int>(looks), (std::vector<int>{2, 2, 1}));
  EXPECT_EQ(downloaded<int>(words), values);
}

}  // namespace
}  // namespace flash_mla::test
