// The tiles of one part, in order ("the part's loop" of docs/algorithm.md): what a thread block or a thread loops over.
//
//   part p = { units and pieces of units from position parts[p] up to position parts[p + 1] }
//
// Used by every backend's decode. It clips to the lengths that it finds: when they changed after schedule, tiles carry
// undefined results but stay in bounds. Requests at or past header.batch (the padding of a batch that a CUDA graph was
// captured with) come as tiles without blocks, dealt round-robin over the parts.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/int_math.h"
#include "schedule/records.h"
#include "schedule/work.h"

namespace flash_mla {

// Packed rows [first_row, first_row + num_rows) of one kv head against blocks [block_begin, block_end); equal: the rows
// see nothing here. The unit's splits are slots first_slot .. first_slot + (last_part - first_part), one per part.
struct Tile {
  std::int32_t request = 0;
  std::int32_t kv_head = 0;
  std::int32_t first_row = 0;
  std::int32_t num_rows = 0;
  std::int32_t block_begin = 0;
  std::int32_t block_end = 0;
  std::int32_t slot = -1;        // -1: the unit is whole, write out and lse; else the partial to write
  std::int32_t first_slot = -1;  // the unit's first partial
  std::int32_t first_part = 0;   // parts that share the unit; this part alone when it is whole
  std::int32_t last_part = 0;

  FLASH_MLA_HOST_DEVICE bool whole() const { return slot < 0; }
  FLASH_MLA_HOST_DEVICE std::int32_t num_splits() const { return last_part - first_part + 1; }
};

class TileCursor {
 public:
  FLASH_MLA_HOST_DEVICE TileCursor(const Work& work, const ScheduleHeader& header, const PartRecord* parts,
                                   std::int32_t part)
      : work_(work),
        begin_(parts[part]),
        end_(parts[part + 1]),
        part_(part),
        num_parts_(header.num_parts),
        scheduled_(min_of(header.batch, work.batch)) {
    enter(max_of(begin_.request, 0), begin_.sub);
  }

  // The next tile of the part; false when there is none.
  FLASH_MLA_HOST_DEVICE bool next(Tile* tile) {
    while (request_ < scheduled_) {
      if (past_end()) {
        enter(scheduled_, 0);
        break;
      }
      if (sub_ < subs_) {
        emit(tile);
        ++sub_;
        return true;
      }
      enter(request_ + 1, 0);
    }
    return next_padding(tile);
  }

 private:
  // Stands at a unit; among the padding, at the first one that is dealt to this part.
  FLASH_MLA_HOST_DEVICE void enter(std::int32_t request, std::int32_t sub) {
    request_ = request;
    sub_ = request < scheduled_ ? sub : padding_phase(request);
    subs_ = request < work_.batch ? work_.subs(request) : 0;
  }

  FLASH_MLA_HOST_DEVICE bool past_end() const {
    if (request_ != end_.request) return request_ > end_.request;
    if (sub_ != end_.sub) return sub_ > end_.sub;
    return end_.block == 0;
  }

  // The unit that an earlier part began.
  FLASH_MLA_HOST_DEVICE bool at_head() const {
    return begin_.block > 0 && request_ == begin_.request && sub_ == begin_.sub;
  }
  // The unit that a later part ends.
  FLASH_MLA_HOST_DEVICE bool at_tail() const { return end_.block > 0 && request_ == end_.request && sub_ == end_.sub; }

  FLASH_MLA_HOST_DEVICE void emit(Tile* tile) const {
    const bool head = at_head(), tail = at_tail();
    const std::int32_t blocks = place_rows(tile);
    tile->block_end = tail ? min_of(end_.block, blocks) : blocks;
    tile->block_begin = head ? min_of(begin_.block, tile->block_end) : 0;
    tile->slot = tile->first_slot = -1;
    tile->first_part = tile->last_part = part_;
    if (!head && !tail) return;
    if (head) tile->first_part = begin_.head_first_part, tile->last_part = begin_.head_last_part;
    if (tail) tile->last_part = end_.head_last_part;
    tile->slot = begin_.first_slot + (!head && begin_.block > 0 ? 1 : 0);
    tile->first_slot = tile->slot - (part_ - tile->first_part);
  }

  FLASH_MLA_HOST_DEVICE bool next_padding(Tile* tile) {
    while (request_ < work_.batch) {
      if (sub_ < subs_) {
        place_rows(tile);
        tile->block_begin = tile->block_end = 0;
        tile->slot = tile->first_slot = -1;
        tile->first_part = tile->last_part = part_;
        sub_ += num_parts_;
        return true;
      }
      enter(request_ + 1, 0);
    }
    return false;
  }

  // The unit (padding request r, sub s) goes to part (r + s) mod num_parts, counted from the first padding request.
  FLASH_MLA_HOST_DEVICE std::int32_t padding_phase(std::int32_t request) const {
    const std::int32_t phase = (part_ - (request - scheduled_)) % num_parts_;
    return phase < 0 ? phase + num_parts_ : phase;
  }

  // Fills in which rows the current unit has; returns the blocks that they need.
  FLASH_MLA_HOST_DEVICE std::int32_t place_rows(Tile* tile) const {
    const std::int32_t bundles = work_.bundles(request_), bundle = sub_ % bundles;
    tile->request = request_;
    tile->kv_head = sub_ / bundles;
    tile->first_row = bundle * work_.rows_per_unit;
    tile->num_rows = min_of(work_.rows(request_) - tile->first_row, work_.rows_per_unit);
    return work_.blocks(request_, bundle);
  }

  Work work_;
  PartRecord begin_, end_;
  std::int32_t part_, num_parts_;
  std::int32_t scheduled_;  // requests that schedule dealt; the rest is padding
  std::int32_t request_, sub_, subs_;
};

}  // namespace flash_mla
