// A step's lengths, its schedule, and all tiles as the backends would meet them.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "schedule/cost.h"
#include "schedule/layout.h"
#include "schedule/partition.h"
#include "schedule/tile_cursor.h"
#include "schedule/work.h"

namespace flash_mla::testing {

// Owns the lengths that a Work points to.
struct Step {
  std::vector<std::int32_t> lengths;
  std::vector<std::int32_t> queries;  // ragged if not empty
  std::int32_t seqlen_q = 1;
  std::int32_t heads_per_kv = 16;
  std::int32_t num_heads_kv = 1;
  std::int32_t rows_per_unit = 64;
  bool causal = true;
  CostModel cost = {.fixed = 30, .per_block = 10, .merge = 40};
  std::vector<std::int32_t> cu_seqlens_q = {};

  Work work() {
    cu_seqlens_q.clear();
    if (!queries.empty()) {
      cu_seqlens_q.push_back(0);
      for (std::int32_t q : queries) cu_seqlens_q.push_back(cu_seqlens_q.back() + q);
    }
    return {.batch = static_cast<std::int32_t>(lengths.size()),
            .seqlen_q = seqlen_q,
            .cache_seqlens = lengths.data(),
            .cu_seqlens_q = queries.empty() ? nullptr : cu_seqlens_q.data(),
            .heads_per_kv = heads_per_kv,
            .num_heads_kv = num_heads_kv,
            .rows_per_unit = rows_per_unit,
            .causal = causal};
  }
};

struct Schedule {
  std::vector<char> memory;
  std::int32_t num_parts = 0;

  const ScheduleHeader& header() const { return *ScheduleLayout::header(static_cast<const void*>(memory.data())); }
  const PartRecord* parts() const { return ScheduleLayout::parts(static_cast<const void*>(memory.data())); }
};

inline Schedule make(const Work& work, const CostModel& cost, std::int32_t num_parts, char fill = 0x55) {
  constexpr int kGuardBytes = 64;
  Schedule schedule{std::vector<char>(ScheduleLayout{num_parts}.total_bytes() + kGuardBytes, fill), num_parts};
  make_schedule(work, cost, num_parts, schedule.memory.data());
  for (int i = 0; i < kGuardBytes; ++i) {
    EXPECT_EQ(schedule.memory.back(), fill) << "written behind the schedule";
    schedule.memory.pop_back();
  }
  return schedule;
}

// tiles[p]: those of part p.
inline std::vector<std::vector<Tile>> tiles_of(const Work& work, const Schedule& schedule) {
  std::vector<std::vector<Tile>> tiles(schedule.num_parts);
  for (std::int32_t part = 0; part < schedule.num_parts; ++part) {
    TileCursor cursor(work, schedule.header(), schedule.parts(), part);
    for (Tile tile; cursor.next(&tile);) tiles[part].push_back(tile);
  }
  return tiles;
}

enum class Lengths { equal, uniform, heavy_tail, mostly_empty, one_giant };
inline constexpr Lengths kAllLengths[] = {Lengths::equal, Lengths::uniform, Lengths::heavy_tail, Lengths::mostly_empty,
                                          Lengths::one_giant};

inline std::vector<std::int32_t> draw_lengths(std::mt19937& random, std::int32_t batch, Lengths kind) {
  std::vector<std::int32_t> lengths(batch);
  const auto below = [&](std::uint32_t n) { return static_cast<std::int32_t>(random() % n); };
  const std::int32_t common = below(9000);
  for (std::int32_t& length : lengths) {
    switch (kind) {
      case Lengths::equal:
        length = common;
        break;
      case Lengths::uniform:
        length = below(4096);
        break;
      case Lengths::heavy_tail:
        length = below(64) << below(12);
        break;
      case Lengths::mostly_empty:
        length = below(10) ? 0 : below(2000);
        break;
      case Lengths::one_giant:
        length = below(300);
        break;
    }
  }
  if (kind == Lengths::one_giant && batch > 0) lengths[below(batch)] = 1 << 20;
  return lengths;
}

inline std::string describe(const Step& step, std::int32_t num_parts) {
  return "batch " + std::to_string(step.lengths.size()) + " parts " + std::to_string(num_parts) + " s_q " +
         (step.queries.empty() ? std::to_string(step.seqlen_q) : "ragged") + " heads_per_kv " +
         std::to_string(step.heads_per_kv) + " heads_kv " + std::to_string(step.num_heads_kv) + " rows " +
         std::to_string(step.rows_per_unit) + (step.causal ? " causal" : " full") + " fixed " +
         std::to_string(step.cost.fixed) + " merge " + std::to_string(step.cost.merge) + " partial " +
         std::to_string(step.cost.partial) + " few blocks " + std::to_string(step.cost.few_blocks);
}

// Any shape.
inline Step draw_step(std::mt19937& random, std::int32_t batch) {
  const auto pick = [&](auto... values) {
    const std::int32_t list[] = {values...};
    return list[random() % (sizeof list / sizeof list[0])];
  };
  Step step;
  step.lengths = draw_lengths(random, batch, kAllLengths[random() % std::size(kAllLengths)]);
  step.seqlen_q = pick(1, 1, 2, 3, 4, 7, 100);
  step.num_heads_kv = pick(1, 1, 2, 3, 8);
  step.heads_per_kv = pick(1, 3, 9, 16, 63, 64, 100, 128);
  step.rows_per_unit = pick(16, 32, 64, 128, 100);
  step.causal = random() % 2;
  step.cost = {.fixed = pick(1, 10, 100, 1000),
               .per_block = pick(1, 10, 100),
               .merge = pick(0, 10, 100, 5000),
               .partial = pick(0, 0, 10, 300),
               .few_blocks = pick(0, 2, 50)};
  if (random() % 3 == 0) {
    for (std::int32_t r = 0; r < batch; ++r) step.queries.push_back(random() % 4 ? random() % 6 : random() % 300);
  }
  return step;
}

}  // namespace flash_mla::testing
