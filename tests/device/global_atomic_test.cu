// Words in global memory by which thread blocks talk (cuda/ptx/global_atomic.h), and the fence with which they publish
// other memory: all from many thread blocks at a time, with integers, so that answers are exact.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cuda/ptx/fence.h"
#include "cuda/ptx/global_atomic.h"
#include "device/gpu.h"
#include "device/patience.cuh"

namespace flash_mla::test {
namespace {

// words: a sum; a slot that one thread wins; what the winner left; a copy of the sum.
__global__ void use_atomics(std::uint64_t* words, std::uint64_t* winners) {
  ptx::fetch_add_acq_rel(words, (std::uint64_t{1} << 32) + 1);
  const std::uint64_t own = blockIdx.x * blockDim.x + threadIdx.x + 1;
  if (ptx::compare_exchange_relaxed(words + 1, 0, own) == 0) {
    ptx::store_relaxed(words + 2, own);
    ptx::fetch_add_relaxed(winners, 1);
  }
  const std::uint64_t all = std::uint64_t{gridDim.x} * blockDim.x;
  while ((ptx::load_acquire(words) & 0xffffffffu) != all) {
  }
  if (own == 1) words[3] = ptx::load_acquire(words);
}

TEST(GlobalAtomics, CountAndChoose) {
  constexpr std::uint64_t kThreads = 32 * 64;
  DeviceMemory words(4 * 8), winners(8);
  words.fill(0), winners.fill(0);
  use_atomics<<<32, 64>>>(static_cast<std::uint64_t*>(words.data()), static_cast<std::uint64_t*>(winners.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  const auto seen = downloaded<std::uint64_t>(words);
  EXPECT_EQ(seen[0], (kThreads << 32) + kThreads);
  EXPECT_EQ(seen[3], seen[0]);
  EXPECT_EQ(seen[1], seen[2]);
  EXPECT_TRUE(seen[1] >= 1 && seen[1] <= kThreads) << seen[1];
  EXPECT_EQ(downloaded<std::uint64_t>(winners)[0], 1u);
}

// Both sums give each thread another number; numbers: [2, threads].
__global__ void number_threads(std::uint64_t* sums, std::uint64_t* numbers) {
  const unsigned own = blockIdx.x * blockDim.x + threadIdx.x, all = gridDim.x * blockDim.x;
  numbers[own] = ptx::fetch_add_acq_rel(sums, 1);
  numbers[all + own] = ptx::fetch_add_relaxed(sums + 1, 3);
}

TEST(GlobalAtomics, SumsReturnWhatWasThere) {
  constexpr std::uint64_t kThreads = 32 * 64, kFirst = 0xffffff00;  // beyond 32 bits
  const DeviceMemory sums = uploaded(std::vector<std::uint64_t>{kFirst, kFirst}), memory(2 * kThreads * 8);
  number_threads<<<32, 64>>>(static_cast<std::uint64_t*>(sums.data()), static_cast<std::uint64_t*>(memory.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  auto numbers = downloaded<std::uint64_t>(memory);
  std::sort(numbers.begin(), numbers.begin() + kThreads);
  std::sort(numbers.begin() + kThreads, numbers.end());
  for (std::uint64_t i = 0; i < kThreads; ++i) {
    ASSERT_EQ(numbers[i], kFirst + i);
    ASSERT_EQ(numbers[kThreads + i], kFirst + 3 * i);
  }
  EXPECT_EQ(downloaded<std::uint64_t>(sums), (std::vector<std::uint64_t>{kFirst + kThreads, kFirst + 3 * kThreads}));
}

__global__ void exchange(std::uint64_t* word, std::uint64_t other, std::uint64_t* seen) {
  const std::uint64_t value = *word;
  seen[0] = ptx::compare_exchange_relaxed(word, other, 9);
  seen[1] = ptx::load_acquire(word);
  seen[2] = ptx::compare_exchange_relaxed(word, value, 9);
  seen[3] = ptx::load_acquire(word);
  ptx::store_relaxed(word, other);
  seen[4] = ptx::load_acquire(word);
}

TEST(GlobalAtomics, ExchangeWhatIsExpectedAlone) {
  constexpr std::uint64_t kValue = (std::uint64_t{1} << 40) + 5, kOther = kValue + (std::uint64_t{1} << 63);
  const DeviceMemory word = uploaded(std::vector<std::uint64_t>{kValue}), seen(5 * 8);
  exchange<<<1, 1>>>(static_cast<std::uint64_t*>(word.data()), kOther, static_cast<std::uint64_t*>(seen.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  EXPECT_EQ(downloaded<std::uint64_t>(seen), (std::vector<std::uint64_t>{kValue, kValue, kValue, 9, kOther}));
}

// Each thread stores a vector of either kind, and loads those of another one.
__global__ void pass_vectors(float4* fours, float2* twos, float4* fours_seen, float2* twos_seen) {
  const unsigned own = threadIdx.x, other = blockDim.x - 1 - own;
  const auto x = static_cast<float>(4 * own), y = static_cast<float>(2 * own);
  ptx::store_relaxed(&fours[own].x, float4{x, x + 1, x + 2, x + 3});
  ptx::store_relaxed(twos + own, float2{y, y + 1});
  __syncthreads();
  fours_seen[other] = ptx::load_relaxed(fours + other);
  twos_seen[other] = ptx::load_relaxed(twos + other);
}

TEST(GlobalAtomics, VectorsKeepTheirOrder) {
  constexpr int kThreads = 256;
  const DeviceMemory fours(kThreads * 16), fours_seen(kThreads * 16), twos(kThreads * 8), twos_seen(kThreads * 8);
  pass_vectors<<<1, kThreads>>>(static_cast<float4*>(fours.data()), static_cast<float2*>(twos.data()),
                                static_cast<float4*>(fours_seen.data()), static_cast<float2*>(twos_seen.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  for (const DeviceMemory* memory : {&fours, &fours_seen, &twos, &twos_seen}) {
    const auto words = downloaded<float>(*memory);
    for (std::size_t i = 0; i < words.size(); ++i) ASSERT_EQ(words[i], static_cast<float>(i));
  }
}

// ---- publishing ----------------------------------------------------------------------------------------------------

constexpr int kPairs = 128, kWords = 8;

struct Mailbox {
  std::uint64_t *written, *read;  // [kPairs] the last round
  int* words;                     // [kWords, kPairs]
  int* mistakes;
};

__device__ int letter(int round, int word) { return (round * kWords + word) * kPairs + static_cast<int>(threadIdx.x); }

// Each thread of the first thread block writes words to its partner in the second, which reads them as soon as it hears
// of them, and answers; then they are written again. Words are plain: fences alone order them.
__global__ void write_letters(int rounds, Mailbox box) {
  const int own = static_cast<int>(threadIdx.x);
  const Patience patience;
  int mistakes = 0;
  for (int i = 1; i <= rounds; ++i) {
    const auto round = static_cast<std::uint64_t>(i);
    if (blockIdx.x == 0) {
      for (int w = 0; w < kWords; ++w) box.words[w * kPairs + own] = letter(i, w);
      ptx::fence_device();
      ptx::store_relaxed(box.written + own, round);
      while (ptx::load_acquire(box.read + own) != round && patience.left()) {
      }
    } else {
      while (ptx::load_acquire(box.written + own) != round && patience.left()) {
      }
      for (int w = 0; w < kWords; ++w) mistakes += box.words[w * kPairs + own] != letter(i, w);
      ptx::fence_device();
      ptx::store_relaxed(box.read + own, round);
    }
  }
  if (!patience.left()) ++mistakes;
  if (mistakes != 0) atomicAdd(box.mistakes, mistakes);
}

TEST(FenceDevice, WordsComeBeforeTheNewsOfThem) {
  DeviceMemory written(kPairs * 8), read(kPairs * 8), words(kWords * kPairs * 4), mistakes(4);
  for (DeviceMemory* memory : {&written, &read, &words, &mistakes}) memory->fill(0);
  Mailbox box = {static_cast<std::uint64_t*>(written.data()), static_cast<std::uint64_t*>(read.data()),
                 static_cast<int*>(words.data()), static_cast<int*>(mistakes.data())};
  int rounds = 2000;
  void* arguments[] = {&rounds, &box};
  // Cooperative, so that both thread blocks are there at a time.
  FLASH_MLA_REQUIRE(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(&write_letters), dim3(2), dim3(kPairs),
                                                arguments, 0, nullptr));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  EXPECT_EQ(downloaded<int>(mistakes)[0], 0);
}

}  // namespace
}  // namespace flash_mla::test
