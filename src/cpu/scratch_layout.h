// The partials of cut units in the caller's scratch memory; workspaces lie behind them.
//
//   partial_out f32 [2 * num_parts, rows_per_unit, 512] | partial_lse f32 [2 * num_parts, rows_per_unit]
//
// A part has at most two partials (of the unit it finds begun and of the unit it leaves unfinished). partial_lse is the
// natural logarithm, -inf for an empty partial.
#pragma once

#include <cstdint>

#include "core/int_math.h"
#include "core/problem.h"
#include "flash_mla/plan.h"

namespace flash_mla::cpu {

struct ScratchLayout {
  std::int32_t num_parts = 0;
  std::int32_t rows_per_unit = 0;

  [[nodiscard]] constexpr std::int64_t rows() const { return std::int64_t{2} * num_parts * rows_per_unit; }
  [[nodiscard]] constexpr std::int64_t partial_lse_offset_bytes() const {
    return round_up(rows() * kLatentDim * 4, kScratchAlignmentBytes);
  }
  [[nodiscard]] constexpr std::int64_t total_bytes() const {
    return partial_lse_offset_bytes() + round_up(rows() * 4, kScratchAlignmentBytes);
  }

  static float* partial_out(void* scratch) { return static_cast<float*>(scratch); }
  float* partial_lse(void* scratch) const {
    return reinterpret_cast<float*>(static_cast<char*>(scratch) + partial_lse_offset_bytes());
  }
};

}  // namespace flash_mla::cpu
