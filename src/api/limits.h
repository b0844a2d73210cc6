// Bounds that keep the scheduler's 32-bit counts from overflowing; far above any real problem.
#pragma once

#include <cstdint>
#include <limits>

#include "flash_mla/plan.h"

namespace flash_mla {

inline constexpr std::int64_t kInt32Max = std::numeric_limits<std::int32_t>::max();
inline constexpr std::int64_t kMaxRowsPerRequest = std::int64_t{1} << 30;  // max_seqlen_q * num_heads_q
inline constexpr std::int64_t kMaxParts = 1 << 16;
inline constexpr std::int64_t kMaxLength_tokens = kInt32Max - (kBlockTokens - 1);  // so that it can be rounded up

constexpr bool is_page_size(std::int64_t tokens) noexcept {
  return tokens == 16 || tokens == 32 || (tokens > 0 && tokens % kBlockTokens == 0 && tokens <= kInt32Max);
}

// What the CPU can read; lengths, tables and schedules on other devices are taken as they are.
constexpr bool host_readable(Device device) noexcept { return device.type == DeviceType::cpu; }

}  // namespace flash_mla
