// Splits counted on the device equal the host's, for small and large batches, and nothing is written behind them.
#include "cuda/num_splits.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "device/gpu.h"
#include "schedule/num_splits.h"
#include "unit/schedule/schedule_fixture.h"

namespace flash_mla::testing {
namespace {

constexpr std::int32_t kGuard = 0x33333333;

// num_splits [batch + 1] of a schedule that lies on the device, with a guard behind.
std::vector<std::int32_t> counted_on_device(const Schedule& schedule, std::int32_t batch) {
  const test::DeviceMemory memory = test::uploaded(schedule.memory);
  test::DeviceMemory counts((static_cast<std::size_t>(batch) + 2) * sizeof(std::int32_t));
  counts.fill(0x33);
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  const Status status = cuda::launch_num_splits(memory.data(), schedule.num_parts, batch,
                                                static_cast<std::int32_t*>(counts.data()), nullptr);
  EXPECT_TRUE(status.ok()) << status.message();
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  return test::downloaded<std::int32_t>(counts);
}

TEST(NumSplitsKernel, EqualsTheHost) {
  std::mt19937 random(5);
  for (std::int32_t batch : {0, 1, 2, 31, 32, 33, 511, 512, 513, 1025, 5000}) {
    for (std::int32_t num_parts : {1, 66, 132, 700}) {
      Step step = draw_step(random, batch);
      const Schedule schedule = make(step.work(), step.cost, num_parts);
      for (std::int32_t padding : {0, 3}) {
        std::vector<std::int32_t> expected(batch + padding + 1);
        count_splits(schedule.memory.data(), num_parts, batch + padding, expected.data());
        expected.push_back(kGuard);
        ASSERT_EQ(counted_on_device(schedule, batch + padding), expected) << describe(step, num_parts);
      }
    }
  }
}

}  // namespace
}  // namespace flash_mla::testing
