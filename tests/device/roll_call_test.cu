// The rolls of cut units (cuda/combine/roll_call.h) and the partials that say by themselves whether they are there
// (cuda/combine/blank.h): with all thread blocks on the GPU at a time and with far more than fit, with any memory to
// begin with, and again with the tag that came last.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "cuda/combine/blank.h"
#include "cuda/combine/roll_call.h"
#include "device/gate_cases.h"
#include "device/gpu.h"

namespace flash_mla::test {
namespace {

using cuda::RollCall;

constexpr std::uint32_t kPatienceCycles = 1 << 12;

struct Step {
  std::uint64_t* rolls;  // [units]
  float4* partials;      // [units, splits]
  int* merged;           // [units, splits] times that a share was merged
  int* mistakes;         // partials that were not what had been written
  int splits;
};

__global__ void answer_rolls(Step step, int longest_sleep_ns) {
  extern __shared__ char room[];
  if (threadIdx.x != 0) return;
  room[0] = 0;
  const int unit = static_cast<int>(blockIdx.x) / step.splits, split = static_cast<int>(blockIdx.x) % step.splits;
  float4* const partials = step.partials + unit * step.splits;
  ptx::store_relaxed(&partials[split].x, cuda::blanks());
  RollCall roll(step.rolls + unit);
  roll.open(kGateTag, step.splits);
  if (longest_sleep_ns > 0) __nanosleep((blockIdx.x * 2654435761u >> 8) % longest_sleep_ns);
  const auto x = static_cast<float>(split);
  ptx::store_relaxed(&partials[split].x, float4{x, x + 1, x + 2, x + 3});
  const auto began = static_cast<std::uint32_t>(clock());
  RollCall::State state = roll.look(step.splits);
  while (state == RollCall::State::waiting) {
    const bool impatient = static_cast<std::uint32_t>(clock()) - began > kPatienceCycles;
    state = impatient ? roll.close(step.splits) : roll.look(step.splits);
  }
  int first = split, last = split;
  if (state == RollCall::State::closed && roll.publish(step.splits))
    first = 0, last = step.splits - 1;
  else if (state == RollCall::State::closed)
    last = -1;
  for (int share = first; share <= last; ++share) {
    for (int i = 0; i < step.splits; ++i) {
      float4 v = cuda::blanks();
      while (cuda::is_blank(v)) v = ptx::load_relaxed(partials + i);
      const auto y = static_cast<float>(i);
      if (v.x != y || v.y != y + 1 || v.z != y + 2 || v.w != y + 3) atomicAdd(step.mistakes, 1);
    }
    atomicAdd(step.merged + unit * step.splits + share, 1);
  }
  roll.count();
  roll.clear(step.splits);
}

void check(const GateCase& c) {
  const int n = c.units * c.splits;
  DeviceMemory partials(n * 16), merged(n * 4), mistakes(4), rolls = uploaded(garbage_words(c.units));
  mistakes.fill(0), partials.fill(0);
  const Step step = {static_cast<std::uint64_t*>(rolls.data()), static_cast<float4*>(partials.data()),
                     static_cast<int*>(merged.data()), static_cast<int*>(mistakes.data()), c.splits};
  FLASH_MLA_REQUIRE(cudaFuncSetAttribute(reinterpret_cast<const void*>(&answer_rolls),
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, c.shared_memory_bytes));
  for (int round = 0; round < 20; ++round) {  // the same tag, as in a graph, and the partials of the last one
    merged.fill(0);
    answer_rolls<<<n, 32, c.shared_memory_bytes>>>(step, c.longest_sleep_ns);
    FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
    ASSERT_EQ(downloaded<int>(mistakes)[0], 0) << "round " << round;
    for (const int times : downloaded<int>(merged)) ASSERT_EQ(times, 1) << "round " << round;
    for (const std::uint64_t word : downloaded<std::uint64_t>(rolls)) ASSERT_EQ(word, 0u) << "round " << round;
  }
}

TEST(RollCalls, AllThreadBlocksAtATime) {
  for (const GateCase& c : gate_cases_that_fit()) check(c);
}

// Those that wait must leave, or the others never begin.
TEST(RollCalls, MoreThreadBlocksThanFit) {
  for (const GateCase& c : gate_cases_that_do_not_fit()) check(c);
}

__global__ void find_blanks(const float4* fours, int* blank) {
  blank[threadIdx.x] = cuda::is_blank(ptx::load_relaxed(fours + threadIdx.x)) ? 1 : 0;
}

// What is written is there again, whatever it is, and one blank word makes a vector blank.
TEST(Blanks, AreNothingElse) {
  const float blank = [] {
    const std::uint32_t bits = cuda::kBlank;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  }();
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  std::vector<float4> fours = {{0, -0.0f, 1, -1}, {nan, -nan, inf, -inf}};
  for (int word = 0; word < 4; ++word) {
    float words[4] = {1, 2, 3, 4};
    words[word] = blank;
    fours.push_back({words[0], words[1], words[2], words[3]});
  }
  const DeviceMemory values = uploaded(fours);
  DeviceMemory found(static_cast<std::int64_t>(fours.size() * 4));
  find_blanks<<<1, static_cast<unsigned>(fours.size())>>>(static_cast<const float4*>(values.data()),
                                                          static_cast<int*>(found.data()));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  EXPECT_EQ(downloaded<int>(found), (std::vector<int>{0, 0, 1, 1, 1, 1}));
}

}  // namespace
}  // namespace flash_mla::test
