// What the scheduler's model of time (schedule/cost.h) takes for a step on a GPU.
#pragma once

#include <cstdint>

#include "schedule/cost.h"

namespace flash_mla::cuda {

// In tenths of microseconds, fitted to times of whole steps. A block: one multiprocessor's share of the memory's
// bandwidth, or where the `cohort` thread blocks of a part share what they read, its tensor cores' time. A tile's own
// part: Q's way, the pipeline's first blocks, the write of the result. A partial: its rows' way to memory, and with
// many rows the wait for other parts, which few rows have as a merge's. Half of the multiprocessors can keep memory
// busy, and in a step of few blocks the set-up of the next kernel counts, for which the other half has time.
inline CostModel step_costs(bool few_rows, std::int32_t cohort) {
  CostModel cost;
  cost.fixed = few_rows ? 50 : 25;
  cost.per_block = cohort == 1 ? 32 : cohort == 2 ? 20 : 18;
  cost.merge = few_rows ? 10 : 0;
  cost.partial = few_rows ? 20 : 45;
  cost.few_blocks = 2;
  return cost;
}

}  // namespace flash_mla::cuda
