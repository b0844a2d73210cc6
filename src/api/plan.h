// plan() apart from the choice of the backend, so that tests can bring their own.
#pragma once

#include "core/backend.h"
#include "flash_mla/plan.h"
#include "flash_mla/status.h"

namespace flash_mla {

Result<Plan> make_plan(const PlanConfig& config, const Backend& backend) noexcept;

}  // namespace flash_mla
