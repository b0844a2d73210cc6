// From the positions of the parts to their records: which parts share a unit, and the numbers of their partials.
// Shared by the host's partition and the device's kernel.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "schedule/cuts.h"
#include "schedule/layout.h"
#include "schedule/records.h"
#include "schedule/work.h"

namespace flash_mla {

FLASH_MLA_HOST_DEVICE PartRecord record_at(const Cut& cut) {
  return {cut.request, cut.sub, cut.block, 0, 0, 0, {0, 0}};
}

FLASH_MLA_HOST_DEVICE bool same_unit(const PartRecord& a, const PartRecord& b) {
  return a.request == b.request && a.sub == b.sub;
}
FLASH_MLA_HOST_DEVICE bool unit_precedes(const PartRecord& a, const PartRecord& b) {
  return a.request != b.request ? a.request < b.request : a.sub < b.sub;
}

// Partials that a part writes: one for the unit it finds begun, one for another that it leaves unfinished.
FLASH_MLA_HOST_DEVICE std::int32_t partials_of(const PartRecord* parts, std::int32_t part) {
  const PartRecord &begin = parts[part], &end = parts[part + 1];
  const bool head = begin.block > 0, tail = end.block > 0;
  return (head ? 1 : 0) + (tail && !(head && same_unit(begin, end)) ? 1 : 0);
}

// The first record in [low, high) whose unit is not before (or, with `after`, is after) that of `at`; else high.
FLASH_MLA_HOST_DEVICE std::int32_t find_unit(const PartRecord* parts, std::int32_t low, std::int32_t high,
                                             const PartRecord& at, bool after) {
  FLASH_MLA_NO_UNROLL while (low < high) {
    const std::int32_t middle = low + (high - low) / 2;
    if (after ? !unit_precedes(at, parts[middle]) : unit_precedes(parts[middle], at)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Completes a record, given all positions. `used` parts have work; `first_slot` partials come before this part's.
FLASH_MLA_HOST_DEVICE void number_part(PartRecord* parts, std::int32_t part, std::int32_t used,
                                       std::int32_t first_slot) {
  PartRecord& record = parts[part];
  record.first_slot = first_slot;
  record.head_first_part = record.head_last_part = part;
  if (record.block == 0) return;
  // The unit's first record stands at its first block if the part that begins it begins with it, else inside it.
  const std::int32_t first = find_unit(parts, 0, part, record, false);
  record.head_first_part = parts[first].block > 0 ? first - 1 : first;
  record.head_last_part = find_unit(parts, part + 1, used, record, true) - 1;
}

FLASH_MLA_HOST_DEVICE ScheduleHeader make_header(const Work& work, const WorkTotals& totals, std::int32_t num_parts,
                                                 std::int32_t num_slots) {
  return {kScheduleMagic, shape_hash(work), static_cast<std::int32_t>(totals.lengths_hash),
          work.batch,     num_parts,        num_slots,
          {0, 0}};
}

}  // namespace flash_mla
