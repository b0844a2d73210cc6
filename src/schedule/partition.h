// Step 2 of docs/algorithm.md: make_schedule cuts the units of a step into parts of nearly equal modelled time
// (cost.h).
//
// Two families of rules propose cuts; of their proposals the one with the least modelled time is taken:
//   shares   parts of equal cost, boundaries at p * total / num_parts. A boundary inside a unit moves to an end of that
//            unit where that costs its neighbours little enough (SnapRule of cuts.h), else it cuts the unit at a block
//            boundary, never into the unit's fixed cost. From "all move", which cuts nothing, to "none moves".
//   pieces   at most one unit, or one of the equal pieces of a unit, per part: the least piece length for which all
//            pieces find a part, or a longer one if partials cost more, or no cut at all. For a machine that has at
//            least as many parts as there are units: a request of 8 blocks goes to 8 parts, 264 blocks to 132 parts of
//            two.
// Where no boundary moves, a part takes at most total / num_parts + fixed + per_block + 2 * partial: a cut moves down
// by less than one block if it stays inside a unit, whose fixed cost is then paid twice, and else by less than fixed +
// per_block. So the step takes at most that and the merge of two partials a part.
//
// Tried in the model of bench/schedule and not kept: boundaries between those that moved spaced anew (0.4 % on serving
// batches, one search more), the grid of shares shifted by fractions of a share (0.3 %), twice the slack (under
// 0.1 %). Filling part after part to a common limit saves 1 to 7 % more there, but is a serial loop.
// Parts that get nothing come last. All arithmetic is on integers, so host and device agree bit for bit.
#pragma once

#include <cstdint>

#include "schedule/cost.h"
#include "schedule/work.h"

namespace flash_mla {

// Writes the schedule of `work` to memory laid out as ScheduleLayout{num_parts}; num_parts >= 1. Allocates nothing;
// thread-safe for distinct memories.
void make_schedule(const Work& work, const CostModel& cost, std::int32_t num_parts, void* schedule_memory);

}  // namespace flash_mla
