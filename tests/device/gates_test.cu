// The gates of cut units (cuda/combine/gate.h): with all thread blocks on the GPU at a time and with far more than fit,
// with any memory to begin with, and again with the tag that came last.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "cuda/combine/gate.h"
#include "device/gate_cases.h"
#include "device/gpu.h"

namespace flash_mla::test {
namespace {

using cuda::Gate;
using cuda::Shares;

struct Step {
  std::uint64_t* gates;  // [units]
  int* published;        // [units, splits]
  int* merged;           // [units, splits] times that a share was merged
  int* mistakes;         // shares merged before all was published
  std::uint64_t tag;
  int splits;
};

__global__ void walk_through_gates(Step step, int longest_sleep_ns) {
  extern __shared__ char room[];
  if (threadIdx.x != 0) return;
  room[0] = 0;
  const int unit = static_cast<int>(blockIdx.x) / step.splits, split = static_cast<int>(blockIdx.x) % step.splits;
  int* const published = step.published + unit * step.splits;
  Gate gate(step.gates + unit);
  gate.open(step.tag, step.splits);
  if (longest_sleep_ns > 0) __nanosleep((blockIdx.x * 2654435761u >> 8) % longest_sleep_ns);
  published[split] = split + 1;
  Shares shares;
  if (!gate.publish(step.splits, split, &shares)) {
    while (!gate.look(step.splits, split, &shares)) {
    }
  }
  for (int share = shares.first; share <= shares.last; ++share) {
    for (int i = 0; i < step.splits; ++i) {
      if (*const_cast<volatile int*>(published + i) != i + 1) atomicAdd(step.mistakes, 1);
    }
    atomicAdd(step.merged + unit * step.splits + share, 1);
  }
  gate.count();
  gate.clear(step.splits);
}

void check(const GateCase& c) {
  const int n = c.units * c.splits;
  DeviceMemory published(n * 4), merged(n * 4), mistakes(4);
  mistakes.fill(0);
  DeviceMemory gates = uploaded(garbage_words(c.units));
  const Step step = {static_cast<std::uint64_t*>(gates.data()),
                     static_cast<int*>(published.data()),
                     static_cast<int*>(merged.data()),
                     static_cast<int*>(mistakes.data()),
                     kGateTag,
                     c.splits};
  FLASH_MLA_REQUIRE(cudaFuncSetAttribute(reinterpret_cast<const void*>(&walk_through_gates),
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, c.shared_memory_bytes));
  for (int round = 0; round < 20; ++round) {  // the same tag, as in a graph
    published.fill(0), merged.fill(0);
    walk_through_gates<<<n, 32, c.shared_memory_bytes>>>(step, c.longest_sleep_ns);
    FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
    ASSERT_EQ(downloaded<int>(mistakes)[0], 0) << "round " << round;
    for (const int times : downloaded<int>(merged)) ASSERT_GE(times, 1) << "round " << round;
    for (const std::uint64_t word : downloaded<std::uint64_t>(gates)) ASSERT_EQ(word, 0u) << "round " << round;
  }
}

TEST(Gates, AllThreadBlocksAtATime) {
  for (const GateCase& c : gate_cases_that_fit()) check(c);
}

// Those that wait must leave, or the others never begin.
TEST(Gates, MoreThreadBlocksThanFit) {
  for (const GateCase& c : gate_cases_that_do_not_fit()) check(c);
}

}  // namespace
}  // namespace flash_mla::test
