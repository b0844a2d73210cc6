// Properties of make_schedule, each recomputed here from the definition of the work rather than from the partition.
#include "schedule/partition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "schedule_fixture.h"

namespace flash_mla::testing {
namespace {

constexpr std::int32_t kPartCounts[] = {1, 2, 14, 78, 114, 132, 144, 200};

// Blocks that the rows of a bundle need, from the definition of the mask.
std::int32_t blocks_by_definition(const Step& step, std::int32_t request, std::int32_t bundle) {
  const std::int32_t queries = step.queries.empty() ? step.seqlen_q : step.queries[request];
  const std::int32_t last_row = std::min((bundle + 1) * step.rows_per_unit, queries * step.heads_per_kv) - 1;
  std::int64_t tokens = step.lengths[request];
  if (step.causal) tokens = std::max<std::int64_t>(tokens - queries + last_row / step.heads_per_kv + 1, 0);
  return static_cast<std::int32_t>((tokens + 63) / 64);
}

std::int32_t bundles_by_definition(const Step& step, std::int32_t request) {
  const std::int32_t queries = step.queries.empty() ? step.seqlen_q : step.queries[request];
  return (queries * step.heads_per_kv + step.rows_per_unit - 1) / step.rows_per_unit;
}

// Walks all units in order and compares them with the tiles of all parts in order.
void check_coverage(const Step& step, const Schedule& schedule, const std::vector<std::vector<Tile>>& tiles) {
  std::vector<std::pair<std::int32_t, Tile>> in_order;
  for (std::int32_t part = 0; part < schedule.num_parts; ++part) {
    for (const Tile& tile : tiles[part]) in_order.push_back({part, tile});
  }
  std::size_t at = 0;
  std::int32_t slot = 0;
  for (std::int32_t r = 0; r < static_cast<std::int32_t>(step.lengths.size()); ++r) {
    const std::int32_t bundles = bundles_by_definition(step, r);
    const std::int32_t queries = step.queries.empty() ? step.seqlen_q : step.queries[r];
    for (std::int32_t kv_head = 0; kv_head < step.num_heads_kv; ++kv_head) {
      for (std::int32_t bundle = 0; bundle < bundles; ++bundle) {
        const std::int32_t blocks = blocks_by_definition(step, r, bundle);
        const std::size_t first = at;
        std::int32_t covered = 0;
        do {
          ASSERT_LT(at, in_order.size()) << "unit of request " << r << " is missing";
          const auto& [part, tile] = in_order[at];
          ASSERT_EQ(tile.request, r);
          ASSERT_EQ(tile.kv_head, kv_head);
          ASSERT_EQ(tile.first_row, bundle * step.rows_per_unit);
          ASSERT_EQ(tile.num_rows,
                    std::min(step.rows_per_unit, queries * step.heads_per_kv - bundle * step.rows_per_unit));
          ASSERT_EQ(tile.block_begin, covered) << "request " << r;
          ASSERT_TRUE(tile.block_end > tile.block_begin || blocks == 0) << "request " << r;
          ASSERT_EQ(part, in_order[first].first + static_cast<std::int32_t>(at - first)) << "not neighbours";
          covered = tile.block_end, ++at;
        } while (covered < blocks);
        ASSERT_EQ(covered, blocks);
        const auto count = static_cast<std::int32_t>(at - first);
        for (std::size_t i = first; i < at; ++i) {
          const Tile& tile = in_order[i].second;
          ASSERT_EQ(tile.whole(), count == 1);
          ASSERT_EQ(tile.first_part, in_order[first].first);
          ASSERT_EQ(tile.num_splits(), count);
          if (count == 1) continue;
          ASSERT_EQ(tile.slot, slot + static_cast<std::int32_t>(i - first)) << "slots are dense and in order";
          ASSERT_EQ(tile.first_slot, slot);
        }
        slot += count > 1 ? count : 0;
      }
    }
  }
  ASSERT_EQ(at, in_order.size()) << "tiles beyond the last unit";
  ASSERT_EQ(schedule.header().num_slots, slot);
  ASSERT_LE(slot, 2 * schedule.num_parts);
}

void check_idle_parts_come_last(const std::vector<std::vector<Tile>>& tiles) {
  for (std::size_t part = 1; part < tiles.size(); ++part) {
    ASSERT_TRUE(tiles[part].empty() || !tiles[part - 1].empty()) << "part " << part - 1 << " is idle";
  }
}

struct Times {
  double total = 0, step = 0;
};

// By the definition in cost.h.
Times modelled_times(const Step& step, const std::vector<std::vector<Tile>>& tiles) {
  Times times;
  double partials = 0;
  for (const auto& part : tiles) {
    double time = 0;
    for (const Tile& tile : part) {
      time += step.cost.fixed + static_cast<double>(tile.block_end - tile.block_begin) * step.cost.per_block;
      time += tile.whole() ? 0 : step.cost.partial;
      partials += tile.whole() ? 0 : 1;
    }
    times.step = std::max(times.step, time);
  }
  for (std::int32_t r = 0; r < static_cast<std::int32_t>(step.lengths.size()); ++r) {
    for (std::int32_t bundle = 0; bundle < bundles_by_definition(step, r); ++bundle) {
      times.total += step.num_heads_kv * (step.cost.fixed + static_cast<double>(blocks_by_definition(step, r, bundle)) *
                                                                step.cost.per_block);
    }
  }
  if (partials > 0)
    times.step += step.cost.merge + 2 * partials * step.cost.partial / static_cast<double>(tiles.size());
  return times;
}

// The simplest rule there is: equal shares, each boundary moved down to that of a block, or of a unit if it falls into
// the unit's fixed cost. Its modelled time, if num_parts of all parts are used.
double time_of_equal_shares(const Step& step, std::int32_t num_parts, std::size_t all_parts, double total) {
  const CostModel& cost = step.cost;
  const auto share = static_cast<std::int64_t>(total);
  double longest = 0, time = 0, partials = 0;
  std::int64_t before = 0;
  std::int32_t part = 1;  // whose beginning is the next boundary
  const auto boundary = [&] { return part * (share / num_parts) + part * (share % num_parts) / num_parts; };
  const auto close_part = [&] { longest = std::max(longest, time), time = 0, ++part; };
  for (std::int32_t r = 0; r < static_cast<std::int32_t>(step.lengths.size()); ++r) {
    for (std::int32_t sub = 0; sub < step.num_heads_kv * bundles_by_definition(step, r); ++sub) {
      const std::int32_t blocks = blocks_by_definition(step, r, sub % bundles_by_definition(step, r));
      std::int32_t done = 0;
      for (; part < num_parts && boundary() < before + cost.tile(blocks); close_part()) {
        const std::int64_t inside = boundary() - before - cost.fixed;
        const auto block = static_cast<std::int32_t>(std::max<std::int64_t>(inside, 0) / cost.per_block);
        if (block == done) continue;
        time += static_cast<double>(cost.tile(block - done)) + cost.partial, partials += 1;
        done = block;
      }
      time += static_cast<double>(cost.tile(blocks - done)) + (done > 0 ? cost.partial : 0);
      partials += done > 0 ? 1 : 0;
      before += cost.tile(blocks);
    }
  }
  longest = std::max(longest, time);
  return longest + (partials > 0 ? cost.merge + 2 * partials * cost.partial / static_cast<double>(all_parts) : 0);
}

// Half of the parts if each unit finds one there and the step is short (cost.h).
std::int32_t parts_by_definition(const Step& step, std::int32_t num_parts) {
  std::int64_t units = 0, blocks = 0;
  for (std::int32_t r = 0; r < static_cast<std::int32_t>(step.lengths.size()); ++r) {
    for (std::int32_t bundle = 0; bundle < bundles_by_definition(step, r); ++bundle) {
      units += step.num_heads_kv, blocks += std::int64_t{step.num_heads_kv} * blocks_by_definition(step, r, bundle);
    }
  }
  const bool is_short = step.cost.few_blocks > 0 && blocks <= std::int64_t{step.cost.few_blocks} * num_parts;
  const std::int32_t half = std::max(num_parts / 2, 1);
  return is_short && units <= half ? half : num_parts;
}

void check_balance(const Step& step, std::int32_t num_parts, const std::vector<std::vector<Tile>>& tiles) {
  const Times times = modelled_times(step, tiles);
  // A part writes at most two partials, and merges twice what it wrote.
  EXPECT_LE(times.step, 1.1 * times.total / num_parts + step.cost.tile(1) + step.cost.merge + 6.0 * step.cost.partial);
  EXPECT_LE(times.step, time_of_equal_shares(step, num_parts, tiles.size(), times.total) * (1 + 1e-6));
}

void check_all(Step& step, std::int32_t num_parts) {
  const Work work = step.work();
  const Schedule schedule = make(work, step.cost, num_parts);
  ASSERT_TRUE(schedule.memory == make(work, step.cost, num_parts, '\xff').memory) << "not deterministic";
  const auto tiles = tiles_of(work, schedule);
  check_coverage(step, schedule, tiles);
  check_idle_parts_come_last(tiles);
  const std::int32_t to_use = parts_by_definition(step, num_parts);
  for (std::int32_t part = to_use; part < num_parts; ++part) ASSERT_TRUE(tiles[part].empty()) << "part " << part;
  check_balance(step, to_use, tiles);
}

TEST(Partition, RandomSteps) {
  std::mt19937 random(7);
  for (std::int32_t batch : {0, 1, 2, 3, 5, 13, 14, 64, 77, 128, 131, 132, 133, 200, 264, 500}) {
    for (std::int32_t num_parts : kPartCounts) {
      for (int round = 0; round < 12; ++round) {
        Step step = draw_step(random, batch);
        check_all(step, num_parts);
        ASSERT_FALSE(HasFailure()) << describe(step, num_parts);
      }
    }
  }
}

TEST(Partition, LargeBatches) {
  std::mt19937 random(8);
  std::vector<std::int32_t> batches = {511, 512, 513, 1024, 1025, 2500, 12000, 16384, 16385, 20000};
  for (int i = 0; i < 10; ++i) batches.push_back(static_cast<std::int32_t>(random() % 20001));
  for (std::int32_t batch : batches) {
    for (std::int32_t num_parts : kPartCounts) {
      Step step = draw_step(random, batch);
      step.rows_per_unit = 64, step.seqlen_q = 2, step.num_heads_kv = std::min(step.num_heads_kv, 2);
      for (std::int32_t& queries : step.queries) queries = queries % 3;
      check_all(step, num_parts);
      ASSERT_FALSE(HasFailure()) << describe(step, num_parts);
    }
  }
}

TEST(Partition, ManyPartsAndSmallBatches) {
  std::mt19937 random(9);
  for (std::int32_t num_parts : {3, 1000, 1024, 1025, 5000}) {
    for (int round = 0; round < 20; ++round) {
      Step step = draw_step(random, random() % 40);
      check_all(step, num_parts);
      ASSERT_FALSE(HasFailure()) << describe(step, num_parts);
    }
  }
}

TEST(Partition, ZeroLengthsFirstMiddleLastAndAll) {
  for (const auto& lengths :
       {std::vector<std::int32_t>{0, 100, 7000}, {100, 0, 7000}, {100, 7000, 0}, {0, 0, 0}, {0}}) {
    for (std::int32_t num_parts : kPartCounts) {
      Step step{.lengths = lengths, .queries = {}};
      check_all(step, num_parts);
      step.seqlen_q = 5, step.heads_per_kv = 128, step.num_heads_kv = 2;
      check_all(step, num_parts);
    }
  }
}

TEST(Partition, RequestsWithoutQueriesHaveNoUnits) {
  for (std::int32_t num_parts : kPartCounts) {
    Step step{.lengths = {500, 600, 0, 70, 9000}, .queries = {0, 2, 0, 0, 1}};
    check_all(step, num_parts);
    Step none{.lengths = {500, 600}, .queries = {0, 0}};
    check_all(none, num_parts);
  }
}

TEST(Partition, NegativeLengthsCountAsZero) {
  Step step{.lengths = {-5, 200, std::numeric_limits<std::int32_t>::min()}, .queries = {}};
  Step zero{.lengths = {0, 200, 0}, .queries = {}};
  EXPECT_EQ(make(step.work(), step.cost, 14).memory, make(zero.work(), zero.cost, 14).memory);
}

TEST(Partition, LongestPossibleLengthsDoNotOverflow) {
  for (bool causal : {false, true}) {
    Step step{.lengths = std::vector<std::int32_t>(100, std::numeric_limits<std::int32_t>::max()), .queries = {}};
    step.cost = {.fixed = 1000, .per_block = 1000, .merge = 1000, .partial = 1000};
    step.seqlen_q = 3, step.heads_per_kv = 128, step.causal = causal;
    check_all(step, 132);
  }
}

TEST(Partition, AStrideBetweenLengthsIsHonoured) {
  Step packed{.lengths = {10, 900, 30, 7000}, .queries = {}};
  Step strided{.lengths = {10, -1, -1, 900, -1, -1, 30, -1, -1, 7000}, .queries = {}};
  Work work = strided.work();
  work.batch = 4, work.cache_seqlens_stride = 3;
  EXPECT_EQ(make(work, strided.cost, 14).memory, make(packed.work(), packed.cost, 14).memory);
}

std::int32_t parts_with_work(Step& step, std::int32_t num_parts) {
  const Work work = step.work();
  const auto tiles = tiles_of(work, make(work, step.cost, num_parts));
  return static_cast<std::int32_t>(std::count_if(tiles.begin(), tiles.end(), [](auto& part) { return !part.empty(); }));
}

TEST(Partition, AnEmptyMachineIsFilledWithFineSplits) {
  Step step{.lengths = {512}, .queries = {}};
  EXPECT_EQ(parts_with_work(step, 132), 8) << "8 blocks: 8 parts of one block each";
  step.lengths = {132 * 64 * 2};
  EXPECT_EQ(parts_with_work(step, 132), 132) << "264 blocks: two each, nobody has three";
  EXPECT_EQ(modelled_times(step, tiles_of(step.work(), make(step.work(), step.cost, 132))).step, 30 + 2 * 10 + 40);
}

TEST(Partition, AShortStepTakesHalfOfTheParts) {
  Step step{.lengths = {132 * 64 * 2}, .queries = {}};
  step.cost.few_blocks = 2;
  EXPECT_EQ(parts_with_work(step, 132), 66) << "264 blocks: four each";
  step.cost.few_blocks = 1;
  EXPECT_EQ(parts_with_work(step, 132), 132) << "not short";
  step = {.lengths = std::vector<std::int32_t>(66, 64), .queries = {}};
  step.cost.few_blocks = 2;
  EXPECT_EQ(parts_with_work(step, 132), 66);
  step.lengths.assign(67, 64);
  EXPECT_EQ(parts_with_work(step, 132), 67) << "67 units need more than half of the parts";

  // 48 blocks in eight units: whole, 30 + 6 * 20; in two pieces each, 30 + 3 * 20 + 40 + 2 * 40 * 16 / parts.
  step.lengths.assign(8, 6 * 64);
  step.cost = {.fixed = 30, .per_block = 20, .merge = 0, .partial = 40, .few_blocks = 2};
  EXPECT_GT(parts_with_work(step, 66), 8) << "what is written is moved in the time of all 66 parts, not of 33";
}

TEST(Partition, NothingIsCutWhereMergingCostsMoreThanItSaves) {
  Step step{.lengths = {512}, .queries = {}};
  step.cost = {.fixed = 30, .per_block = 10, .merge = 71, .partial = 0};
  EXPECT_EQ(parts_with_work(step, 132), 1) << "a merge costs more than the seven blocks that it saves";
  step.cost.merge = 69;
  EXPECT_EQ(parts_with_work(step, 132), 8);

  Step full{.lengths = std::vector<std::int32_t>(132, 4096), .queries = {}};
  EXPECT_EQ(make(full.work(), full.cost, 132).header().num_slots, 0) << "one request each";
  full.lengths.assign(264, 4096);
  EXPECT_EQ(make(full.work(), full.cost, 132).header().num_slots, 0) << "two requests each";
  full.lengths.assign(140, 4096);
  EXPECT_GT(make(full.work(), full.cost, 132).header().num_slots, 0) << "two rounds for eight requests would be silly";
}

TEST(Partition, PartialsAreCountedOneByOne) {
  Step step{.lengths = {512},
            .queries = {}};  // 8 splits of a block save 70, and cost 40 + 16 / 132 of a merged partial
  step.cost.partial = 26;
  EXPECT_EQ(make(step.work(), step.cost, 132).header().num_slots, 8);
  step.cost.partial = 27;
  EXPECT_EQ(make(step.work(), step.cost, 132).header().num_slots, 0);
}

TEST(Partition, ABoundaryMovesToTheEndOfItsUnitWhereCuttingCostsMore) {
  // Units that cost 120, 120 and 450 for three parts: the first boundary falls a block before the second unit's end,
  // the second into the middle of the third unit, which must be cut.
  Step step{.lengths = {9 * 64, 9 * 64, 42 * 64}, .queries = {}};
  for (const std::int32_t partial : {0, 10, 20}) {
    step.cost = {.fixed = 30, .per_block = 10, .merge = 0, .partial = partial};
    const Work work = step.work();
    const auto tiles = tiles_of(work, make(work, step.cost, 3));
    ASSERT_EQ(tiles[0].size(), 2u);
    EXPECT_TRUE(tiles[0][1].whole());
    EXPECT_EQ(modelled_times(step, tiles).step, 260 + partial + 2.0 * 2 * partial / 3);
  }
}

TEST(Partition, DearPartialsMakeFewer) {
  std::mt19937 random(13);
  for (int round = 0; round < 200; ++round) {
    Step step{.lengths = draw_lengths(random, 40 + random() % 300, Lengths::uniform), .queries = {}};
    std::int32_t fewest = 1 << 20;
    for (std::int32_t partial : {0, 300, 100000}) {
      step.cost.partial = partial;
      const std::int32_t partials = make(step.work(), step.cost, 132).header().num_slots;
      EXPECT_LE(partials, fewest) << describe(step, 132);
      fewest = partials;
    }
    EXPECT_EQ(fewest, 0);
  }
}

TEST(Partition, WithoutCutsTheLongestUnitDecides) {
  std::mt19937 random(12);
  for (int round = 0; round < 200; ++round) {
    Step step = draw_step(random, 1 + random() % 130);
    step.queries.clear(), step.seqlen_q = 1, step.heads_per_kv = 16, step.num_heads_kv = 1;
    step.cost.merge = 1 << 30;
    const Times times = modelled_times(step, tiles_of(step.work(), make(step.work(), step.cost, 132)));
    const std::int32_t longest = *std::max_element(step.lengths.begin(), step.lengths.end());
    ASSERT_EQ(times.step, step.cost.tile((longest + 63) / 64)) << describe(step, 132);
  }
}

TEST(Partition, EqualUnitsThatAreNotWorthCuttingAreDealtEvenly) {
  for (std::int32_t batch : {133, 150, 263, 264, 265, 300, 1000}) {
    Step step{.lengths = std::vector<std::int32_t>(batch, 500), .queries = {}};
    step.cost.merge = 100000;
    const Times times = modelled_times(step, tiles_of(step.work(), make(step.work(), step.cost, 132)));
    EXPECT_EQ(times.step, (batch + 131) / 132 * step.cost.tile(8)) << batch;
  }
}

// Not in sanitizer or debug builds, whose times mean nothing.
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(Partition, SeventyThousandRequestsInUnderTenMilliseconds) {
  std::mt19937 random(11);
  for (std::int32_t num_parts : {1, 132, 200}) {
    Step step{.lengths = draw_lengths(random, 70000, Lengths::heavy_tail), .queries = {}};
    step.heads_per_kv = 128, step.seqlen_q = 2;
    check_all(step, num_parts);
    const Work work = step.work();
    double best_ms = 1e9;
    for (int round = 0; round < 10; ++round) {
      const auto start = std::chrono::steady_clock::now();
      const Schedule schedule = make(work, step.cost, num_parts);
      const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
      best_ms = std::min(best_ms, time.count());
    }
    EXPECT_LT(best_ms, 10.0) << num_parts << " parts";
    RecordProperty("milliseconds_for_" + std::to_string(num_parts) + "_parts", std::to_string(best_ms));
  }
}
#endif

}  // namespace
}  // namespace flash_mla::testing
