// TileCursor where decode sees something else than schedule saw: padded batches and changed lengths.
#include "schedule/tile_cursor.h"

#include <gtest/gtest.h>

#include <map>
#include <tuple>

#include "schedule_fixture.h"

namespace flash_mla::testing {
namespace {

TEST(TileCursor, PaddingComesWithoutBlocksExactlyOnceAndIsDealtOut) {
  std::mt19937 random(1);
  for (std::int32_t num_parts : {1, 2, 14, 132}) {
    for (std::int32_t scheduled : {0, 1, 5, 60}) {
      Step step = draw_step(random, 100);
      step.seqlen_q = 2, step.queries.clear();
      Work captured = step.work();
      Work now = captured;
      now.batch = scheduled;
      const Schedule schedule = make(now, step.cost, num_parts);
      std::map<std::tuple<int, int, int>, int> seen;
      std::vector<int> per_part(num_parts);
      for (std::int32_t part = 0; part < num_parts; ++part) {
        TileCursor cursor(captured, schedule.header(), schedule.parts(), part);
        bool in_padding = false;
        for (Tile tile; cursor.next(&tile);) {
          ASSERT_TRUE(tile.request >= scheduled || !in_padding) << "padding comes last";
          if (tile.request < scheduled) continue;
          in_padding = true;
          EXPECT_TRUE(tile.whole());
          EXPECT_EQ(tile.block_begin, tile.block_end);
          EXPECT_EQ(tile.num_rows, std::min(captured.rows_per_unit, captured.rows(tile.request) - tile.first_row));
          ++seen[{tile.request, tile.kv_head, tile.first_row}];
          ++per_part[part];
        }
      }
      int units = 0;
      for (std::int32_t r = scheduled; r < captured.batch; ++r) units += captured.subs(r);
      EXPECT_EQ(static_cast<int>(seen.size()), units);
      for (const auto& [unit, times] : seen) EXPECT_EQ(times, 1);
      const auto [least, most] = std::minmax_element(per_part.begin(), per_part.end());
      EXPECT_LE(*most - *least, captured.batch - scheduled) << "round-robin: at most one more of each request";
    }
  }
}

TEST(TileCursor, AScheduleOfMoreRequestsThanThereAreStaysInBounds) {
  std::mt19937 random(2);
  Step step = draw_step(random, 100);
  const Schedule schedule = make(step.work(), step.cost, 14);
  Work fewer = step.work();
  fewer.batch = 30;
  for (const auto& part : tiles_of(fewer, schedule)) {
    for (const Tile& tile : part) EXPECT_LT(tile.request, 30);
  }
}

// Everything that a kernel turns into an address.
void check_in_bounds(const Work& work, const Schedule& schedule, const Tile& tile) {
  ASSERT_TRUE(tile.request >= 0 && tile.request < work.batch);
  ASSERT_TRUE(tile.kv_head >= 0 && tile.kv_head < work.num_heads_kv);
  ASSERT_TRUE(tile.first_row >= 0 && tile.num_rows > 0 && tile.num_rows <= work.rows_per_unit);
  ASSERT_LE(tile.first_row + tile.num_rows, work.rows(tile.request));
  ASSERT_TRUE(tile.block_begin >= 0 && tile.block_begin <= tile.block_end);
  ASSERT_LE(tile.block_end, ceil_div(work.length(tile.request), kBlockTokens));
  ASSERT_TRUE(tile.first_part >= 0 && tile.first_part <= tile.last_part && tile.last_part < schedule.num_parts);
  if (tile.whole()) return;
  ASSERT_TRUE(tile.slot >= tile.first_slot && tile.first_slot >= 0);
  ASSERT_LT(tile.first_slot + tile.num_splits() - 1, 2 * schedule.num_parts);
}

TEST(TileCursor, ChangedLengthsNeverLeadOutOfBounds) {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    Step step = draw_step(random, 1 + random() % 40);
    const auto num_parts = static_cast<std::int32_t>(1 + random() % 140);
    const Schedule schedule = make(step.work(), step.cost, num_parts);
    Step changed = step;
    for (std::int32_t& length : changed.lengths) length = random() % 2 ? length / 3 : random() % 5000 - 100;
    for (std::int32_t& queries : changed.queries) queries = random() % 2 ? queries : random() % 8;
    const Work work = changed.work();
    for (const auto& part : tiles_of(work, schedule)) {
      for (const Tile& tile : part) check_in_bounds(work, schedule, tile);
    }
    ASSERT_FALSE(HasFailure()) << describe(step, num_parts);
  }
}

}  // namespace
}  // namespace flash_mla::testing
