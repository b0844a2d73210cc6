// Reads out of a schedule how many parts share each request, as FlashMLA's num_splits counts them:
//
//   num_splits[0] = 0,   num_splits[r + 1] = num_splits[r] + max(parts that work on request r, 1)
//
// Requests past those of the schedule (padding) add nothing. Used by both backends; decode itself never needs it.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/int_math.h"
#include "schedule/layout.h"
#include "schedule/records.h"

namespace flash_mla {

// Parts whose record stands before the given request, or with `or_at_start` also at its first block.
FLASH_MLA_HOST_DEVICE std::int32_t parts_begun(const PartRecord* parts, std::int32_t num_parts, std::int32_t request,
                                               bool or_at_start) {
  std::int32_t low = 0, high = num_parts;
  FLASH_MLA_NO_UNROLL while (low < high) {
    const std::int32_t middle = low + (high - low) / 2;
    const PartRecord& record = parts[middle];
    const bool at_start = or_at_start && record.request == request && record.sub == 0 && record.block == 0;
    if (record.request < request || at_start) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

FLASH_MLA_HOST_DEVICE std::int32_t splits_of_request(const ScheduleHeader& header, const PartRecord* parts,
                                                     std::int32_t num_parts, std::int32_t request) {
  if (request >= header.batch) return 0;
  const std::int32_t before_end = parts_begun(parts, num_parts, request + 1, false);
  const std::int32_t before_or_at_start = parts_begun(parts, num_parts, request, true);
  const std::int32_t first = max_of(before_or_at_start, 1) - 1;  // the part that has the request's first block
  return max_of(before_end - first, 1);
}

// On the host. `batch` requests, num_splits [batch + 1].
inline void count_splits(const void* schedule_memory, std::int32_t num_parts, std::int32_t batch,
                         std::int32_t* num_splits) {
  const ScheduleHeader& header = *ScheduleLayout::header(schedule_memory);
  const PartRecord* parts = ScheduleLayout::parts(schedule_memory);
  num_splits[0] = 0;
  for (std::int32_t r = 0; r < batch; ++r) {
    num_splits[r + 1] = num_splits[r] + splits_of_request(header, parts, num_parts, r);
  }
}

}  // namespace flash_mla
