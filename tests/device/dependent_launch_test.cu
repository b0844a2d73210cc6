// Programmatic dependent launch (cuda/ptx/dependent_launch.h): the second kernel begins while the first still runs, and
// once it has waited it reads all that the first wrote, however late.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "cuda/ptx/dependent_launch.h"
#include "cuda/ptx/global_atomic.h"
#include "device/gpu.h"
#include "device/patience.cuh"

namespace flash_mla::test {
namespace {

constexpr int kThreadBlocks = 8, kThreads = 256, kWords = kThreadBlocks * kThreads;

struct Relay {
  std::uint64_t* began;  // the last round in which the second kernel began
  int* met;              // thread blocks of the first kernel that saw it begin
  int* words;            // [kWords]
  int* mistakes;
};

__device__ int word_of(int round, int i) { return round * kWords + i; }

// Writes some time after the other kernel has begun.
__global__ void write_late(Relay relay, int round) {
  ptx::launch_dependents();
  if (threadIdx.x == 0) {
    const Patience patience;
    bool met = false;
    while (!met && patience.left()) met = ptx::load_acquire(relay.began) == static_cast<std::uint64_t>(round);
    if (met) atomicAdd(relay.met, 1);
    __nanosleep(20'000);
  }
  __syncthreads();
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  relay.words[i] = word_of(round, i);
}

// Each thread block reads what all of the others wrote.
__global__ void read_after(Relay relay, int round) {
  if (blockIdx.x == 0 && threadIdx.x == 0) ptx::store_relaxed(relay.began, static_cast<std::uint64_t>(round));
  ptx::wait_for_prerequisites();
  int mistakes = 0;
  for (int i = static_cast<int>(threadIdx.x); i < kWords; i += kThreads)
    mistakes += relay.words[i] != word_of(round, i);
  if (mistakes != 0) atomicAdd(relay.mistakes, mistakes);
}

void launch_early(Relay relay, int round) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(kThreadBlocks);
  config.blockDim = dim3(kThreads);
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &early;
  config.numAttrs = 1;
  void* arguments[] = {&relay, &round};
  FLASH_MLA_REQUIRE(cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(&read_after), arguments));
}

TEST(DependentLaunch, BeginsEarlyAndReadsWhatWasWrittenLate) {
  DeviceMemory began(8), met(4), words(kWords * 4), mistakes(4);
  for (DeviceMemory* memory : {&began, &met, &words, &mistakes}) memory->fill(0);
  const Relay relay = {static_cast<std::uint64_t*>(began.data()), static_cast<int*>(met.data()),
                       static_cast<int*>(words.data()), static_cast<int*>(mistakes.data())};
  // Without the attribute it waits for nothing, and is loaded: that must not happen while the other one waits for it.
  std::vector<int> first;
  for (int i = 0; i < kWords; ++i) first.push_back(i);
  words.upload(first.data());
  read_after<<<kThreadBlocks, kThreads>>>(relay, 0);
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  EXPECT_EQ(downloaded<int>(mistakes)[0], 0);

  for (int round = 1; round <= 20; ++round) {
    write_late<<<kThreadBlocks, kThreads>>>(relay, round);
    FLASH_MLA_REQUIRE(cudaGetLastError());
    launch_early(relay, round);
    FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
    ASSERT_EQ(downloaded<int>(met)[0], round * kThreadBlocks);
    ASSERT_EQ(downloaded<int>(mistakes)[0], 0) << "round " << round;
  }
}

}  // namespace
}  // namespace flash_mla::test
