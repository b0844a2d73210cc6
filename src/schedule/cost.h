// The scheduler's model of time, in units of the backend's choice (PlanTuning).
//
//   time(part) = sum over its tiles of (fixed + blocks * per_block + (partial, if the tile is not all of its unit))
//   time(step) = max over parts of time(part) + (merge + 2 * partial * partials / parts, if any unit is cut)
//
// `fixed` is what a tile costs whatever its length: loading its queries, filling the pipeline, writing its result.
// `partial` is what writing a partial costs beyond that. Merging takes `merge` however little there is to merge; what
// was written is moved again, and all parts share in that, those without work as well, for it is the memory's time. It
// counts twice, since nothing hides it then.
//
// A step of at most few_blocks blocks a part, on average, is cut into half as many parts (parts_to_use): then its parts
// and those of the next kernel, which sets itself up meanwhile, have processors of their own.
// Sums are int64.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/int_math.h"

namespace flash_mla {

struct CostModel {
  static constexpr std::int32_t kMost = 1 << 26;

  std::int32_t fixed = 1;       // 1 .. kMost
  std::int32_t per_block = 1;   // 1 .. kMost
  std::int32_t merge = 0;       // >= 0
  std::int32_t partial = 0;     // 0 .. kMost
  std::int32_t few_blocks = 0;  // 0 (never) .. kMost

  FLASH_MLA_HOST_DEVICE std::int64_t tile(std::int32_t blocks) const {
    return fixed + static_cast<std::int64_t>(blocks) * per_block;
  }

  // Constants may come from outside: within the bounds above.
  FLASH_MLA_HOST_DEVICE CostModel sanitized() const {
    return {min_of(max_of(fixed, 1), kMost), min_of(max_of(per_block, 1), kMost), max_of(merge, 0),
            min_of(max_of(partial, 0), kMost), min_of(max_of(few_blocks, 0), kMost)};
  }
};

// Modelled times in comparable numbers: of parts in 31 bits, of steps without a division.
class StepClock {
 public:
  FLASH_MLA_HOST_DEVICE StepClock(const CostModel& cost, std::int64_t total_cost, std::int32_t num_parts)
      : cost_(cost), num_parts_(num_parts) {
    FLASH_MLA_NO_UNROLL while (total_cost >> shift_ >= 1 << 30)++ shift_;
  }

  // At most total_cost and what one tile and two partials cost.
  FLASH_MLA_HOST_DEVICE std::uint32_t part(std::int64_t time) const {
    return static_cast<std::uint32_t>(time >> shift_);
  }
  FLASH_MLA_HOST_DEVICE std::int64_t step(std::uint32_t longest_part, std::int32_t partials) const {
    const std::int64_t merging = partials > 0 ? cost_.merge >> shift_ : 0;
    return (longest_part + merging) * num_parts_ + (std::int64_t{2} * partials * cost_.partial >> shift_);
  }

 private:
  CostModel cost_;
  std::int32_t num_parts_;
  std::int32_t shift_ = 0;
};

}  // namespace flash_mla
