// The units that part boundaries cut, as the schedule's records say.
#pragma once

#include "core/int_math.h"
#include "schedule/number_splits.h"
#include "schedule/records.h"
#include "schedule/work.h"

namespace flash_mla::cuda {

// The rows of a cut unit that one thread block of each of its parts has.
struct CutUnit {
  std::int32_t request = 0, kv_head = 0, first_row = 0;
  std::int32_t num_rows = 0;                    // <= 0: there is no such unit, or the thread block has no rows of it
  std::int32_t row_in_unit = 0;                 // of the first one
  std::int32_t num_splits = 0;                  // >= 2
  std::int32_t first_slot = 0, first_part = 0;  // of the first split
  std::int32_t split = 0;                       // the part's own
};

// The cut unit that a part found begun (`tail` false) or left unfinished. `row_in_unit` is the thread block's first
// row.
inline __device__ CutUnit find_cut_unit(const Work& work, const PartRecord* parts, std::int32_t part, bool tail,
                                        int row_in_unit, int rows_per_thread_block) {
  const PartRecord &own = parts[part], &next = parts[part + 1];
  const PartRecord& at = tail ? next : own;
  CutUnit unit;
  if (at.block == 0 || (tail && own.block > 0 && same_unit(own, next))) return unit;
  // Lengths may have changed since schedule: nothing out of bounds, whatever the values.
  if (at.request >= work.batch || at.sub >= work.subs(at.request)) return unit;
  const std::int32_t bundles = work.bundles(at.request), bundle = at.sub % bundles;
  unit.request = at.request;
  unit.kv_head = at.sub / bundles;
  unit.first_row = bundle * work.rows_per_unit + row_in_unit;
  unit.row_in_unit = row_in_unit;
  unit.num_rows = min_of(work.rows(at.request) - unit.first_row, rows_per_thread_block);
  unit.num_splits = at.head_last_part - at.head_first_part + 1;
  unit.split = part - at.head_first_part;
  unit.first_part = at.head_first_part;
  unit.first_slot = own.first_slot + (tail && own.block > 0 ? 1 : 0) - unit.split;
  return unit;
}

}  // namespace flash_mla::cuda
