// The scheduler's model of time, in units of the backend's choice (PlanTuning).
//
//   time(part) = sum over its tiles of (fixed + blocks * per_block)
//   time(step) = max over parts of time(part) + (merge, if any unit is cut)
//
// `fixed` is what a tile costs whatever its length: loading its queries, filling the pipeline, writing its result.
// `merge` is the time until the partials are one result, the same for few and many splits since every worker helps.
// Sums are int64.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace flash_mla {

struct CostModel {
  std::int32_t fixed = 1;      // >= 1
  std::int32_t per_block = 1;  // >= 1
  std::int32_t merge = 0;      // >= 0

  FLASH_MLA_HOST_DEVICE std::int64_t tile(std::int32_t blocks) const {
    return fixed + static_cast<std::int64_t>(blocks) * per_block;
  }
};

}  // namespace flash_mla
