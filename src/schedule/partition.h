// make_schedule: cuts the units of a step into parts of nearly equal modelled time (cost.h).
//
// Four rules propose cuts; the one with the least modelled time is taken, on a tie the one that cuts less:
//   pieces   at most one unit, or one of the equal pieces of a unit, per part; the piece length is the least for which
//            all pieces find a part. For a machine that has more parts than there are units.
//   whole    parts of equal cost, p * total / num_parts, moved to the nearest unit boundary
//   snapped  the same, moved to a unit boundary only where the piece cut off is shorter than its fixed cost
//   fine     the same, moved down to the nearest block boundary
// `fine` alone keeps every part within total / num_parts + fixed + per_block (+ one merge), hence so does the winner.
// Parts that get nothing come last. All arithmetic is on integers, so host and device agree bit for bit.
#pragma once

#include <cstdint>

#include "schedule/cost.h"
#include "schedule/work.h"

namespace flash_mla {

// Writes the schedule of `work` to memory laid out as ScheduleLayout{num_parts, max_batch}. num_parts >= 1,
// 0 <= work.batch <= max_batch. Allocates nothing; thread-safe for distinct memories.
void make_schedule(const Work& work, const CostModel& cost, std::int32_t num_parts, std::int32_t max_batch,
                   void* schedule_memory);

}  // namespace flash_mla
