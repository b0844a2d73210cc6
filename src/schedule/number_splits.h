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

FLASH_MLA_HOST_DEVICE PartRecord record_at(const CutPoint& at, const Cut& cut) {
  if (cut.block == 0 || cut.inside) return {at.request, at.sub, cut.block, 0, 0, 0, {0, 0}};
  const bool last = at.sub + 1 == at.units;
  return {at.request + (last ? 1 : 0), last ? 0 : at.sub + 1, 0, 0, 0, 0, {0, 0}};
}

FLASH_MLA_HOST_DEVICE PartRecord end_record(const Work& work) { return {work.batch, 0, 0, 0, 0, 0, {0, 0}}; }

// Before piece `index` when units are cut into equal pieces; that part's partials, 0 or 1.
FLASH_MLA_HOST_DEVICE PartRecord record_before_piece(const UnitWork& work, const Chunks& chunks, PieceWeight weight,
                                                     const WeightTable& table, std::int32_t index,
                                                     std::int32_t* partials) {
  PartRecord record = {};
  const UnitAt unit = table.find(work, chunks, weight, index, &record.request);
  const std::int64_t pieces = weight(unit.blocks);
  record.sub = unit.sub;
  record.block = static_cast<std::int32_t>(unit.blocks * unit.offset / pieces);
  *partials = pieces > 1 ? 1 : 0;
  return record;
}

FLASH_MLA_HOST_DEVICE bool same_unit(const PartRecord& a, const PartRecord& b) {
  return a.request == b.request && a.sub == b.sub;
}

// Partials that a part writes: one for the unit it finds begun, one for another that it leaves unfinished.
FLASH_MLA_HOST_DEVICE std::int32_t partials_of(const PartRecord* parts, std::int32_t part) {
  const PartRecord &begin = parts[part], &end = parts[part + 1];
  const bool head = begin.block > 0, tail = end.block > 0;
  return (head ? 1 : 0) + (tail && !(head && same_unit(begin, end)) ? 1 : 0);
}

// The furthest of the neighbouring records on one side (step -1 or 1) that stand inside the same unit as `own`, by
// strides that double and then halve: most units have few.
template <class Record>
FLASH_MLA_HOST_DEVICE std::int32_t last_inside(const Record* parts, const Record& own, std::int32_t part,
                                               std::int32_t used, std::int32_t step) {
  bool growing = true;
  FLASH_MLA_NO_UNROLL while (step != 0) {
    const std::int32_t next = part + step;
    bool same = next >= 0 && next < used;
    if (same) {
      const Record record = parts[next];
      same = ((record.request ^ own.request) | (record.sub ^ own.sub)) == 0 && record.block > 0;
    }
    if (same) part = next;
    growing &= same;
    step = growing ? 2 * step : step / 2;
  }
  return part;
}

// The complete record, given the positions (request, sub, block) of all. `used` parts have work; `first_slot` partials
// come before this part's.
template <class Record>
FLASH_MLA_HOST_DEVICE PartRecord numbered(const Record* parts, std::int32_t part, std::int32_t used,
                                          std::int32_t first_slot) {
  const Record own = parts[part];
  std::int32_t first = part, last = part;
  if (own.block > 0) {
    FLASH_MLA_NO_UNROLL for (std::int32_t step = -1; step <= 1; step += 2) {
      first = last, last = last_inside(parts, own, part, used, step);
    }
    --first;  // the part that begins the unit
  }
  return {own.request, own.sub, own.block, first_slot, first, last, {0, 0}};
}

FLASH_MLA_HOST_DEVICE ScheduleHeader make_header(std::int32_t shape_hash, std::int32_t batch, const WorkTotals& totals,
                                                 std::int32_t num_parts, std::int32_t num_slots) {
  return {kScheduleMagic, shape_hash, static_cast<std::int32_t>(totals.lengths_hash), batch, num_parts,
          num_slots,      {0, 0}};
}

}  // namespace flash_mla
