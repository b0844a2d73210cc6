// Step 2 of docs/algorithm.md: make_schedule cuts the units of a step into parts of nearly equal modelled time
// (cost.h).
//
// Three rules propose cuts; the one with the least modelled time is taken, on a tie the first:
//   whole    parts of equal cost, p * total / num_parts, each cut moved to the nearer end of its unit
//   pieces   at most one unit, or one of the equal pieces of a unit, per part: the least piece length for which all
//            pieces find a part, or no cut at all if merging costs more than that saves. For a machine that has at
//            least as many parts as there are units: a request of 8 blocks goes to 8 parts, 264 blocks to 132 parts of
//            two.
//   fine     parts of equal cost, each cut moved down to a block boundary, never into the fixed cost of a unit
// A part between two cuts of `fine` takes at most total / num_parts + fixed + per_block: a cut moves down by less than
// one block if it stays inside a unit, whose fixed cost is then paid twice, and else by less than fixed + per_block. So
// the step takes at most that and one merge. (Moving cuts of `fine` to unit boundaries when they leave less than a
// fixed cost on one side, and shares rounded up to blocks, were tried on trace-like lengths: never better.)
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
