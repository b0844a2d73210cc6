// Splits counted from the records against the tiles that the parts really take.
#include "schedule/num_splits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <vector>

#include "unit/schedule/schedule_fixture.h"

namespace flash_mla::testing {
namespace {

std::vector<std::int32_t> counted(const Schedule& schedule, std::int32_t batch) {
  std::vector<std::int32_t> counts(batch + 1, -1);
  count_splits(schedule.memory.data(), schedule.num_parts, batch, counts.data());
  return counts;
}

// Parts that have a tile of the request.
std::vector<std::set<std::int32_t>> parts_of_requests(const Work& work, const Schedule& schedule) {
  std::vector<std::set<std::int32_t>> parts(work.batch);
  const auto tiles = tiles_of(work, schedule);
  for (std::int32_t part = 0; part < schedule.num_parts; ++part) {
    for (const Tile& tile : tiles[part]) parts[tile.request].insert(part);
  }
  return parts;
}

TEST(NumSplits, AreThePartsThatWorkOnARequest) {
  std::mt19937 random(31);
  for (int round = 0; round < 2000; ++round) {
    Step step = draw_step(random, 1 + static_cast<std::int32_t>(random() % 20));
    const std::int32_t num_parts = 1 + static_cast<std::int32_t>(random() % 40);
    SCOPED_TRACE(describe(step, num_parts));
    const Work work = step.work();
    const Schedule schedule = make(work, step.cost, num_parts);
    const std::vector<std::int32_t> counts = counted(schedule, work.batch);
    const auto parts = parts_of_requests(work, schedule);
    ASSERT_EQ(counts[0], 0);
    for (std::int32_t r = 0; r < work.batch; ++r) {
      const auto expected = std::max<std::int32_t>(static_cast<std::int32_t>(parts[r].size()), 1);
      ASSERT_EQ(counts[r + 1] - counts[r], expected) << "request " << r;
    }
  }
}

TEST(NumSplits, OfPaddingRepeatTheLastValue) {
  Step step{.lengths = {100, 5000}, .queries = {}};
  const Schedule schedule = make(step.work(), step.cost, 8);
  const std::vector<std::int32_t> counts = counted(schedule, 5);
  EXPECT_GT(counts[2], 2);
  EXPECT_EQ(counts[3], counts[2]);
  EXPECT_EQ(counts[5], counts[2]);
}

TEST(NumSplits, OfAnEmptyStepAreOneEach) {
  Step step{.lengths = {0, 0, 0}, .queries = {}};
  EXPECT_EQ(counted(make(step.work(), step.cost, 4), 3), (std::vector<std::int32_t>{0, 1, 2, 3}));
  step.lengths = {};
  EXPECT_EQ(counted(make(step.work(), step.cost, 4), 0), (std::vector<std::int32_t>{0}));
}

}  // namespace
}  // namespace flash_mla::testing
