// Does a schedule memory fit a decode? Only where the CPU can read it.
#pragma once

#include "core/problem.h"
#include "flash_mla/plan.h"
#include "flash_mla/status.h"

namespace flash_mla {

// Made by schedule() for as many parts as the plan has.
Status check_schedule_made(const Plan& plan, const void* schedule_memory) noexcept;

// That, and made with the same heads and queries, for the same lengths. A schedule made without a causal
// mask covers the blocks of one with it, and requests past those of the schedule are padding if they are empty.
Status check_schedule(const Plan& plan, const BatchView& batch, const void* schedule_memory) noexcept;

}  // namespace flash_mla
