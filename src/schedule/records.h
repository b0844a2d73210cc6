// What schedule writes and decode reads: records of 32 bytes.
//
//   header | part 0 | ... | part num_parts - 1 | end
//
// Part p owns the work from its own record's position up to that of the next record; the `end` record stands at request
// `batch`. A unit that a part boundary cuts gives one partial per part that touches it; partials ("slots") are numbered
// densely in part order, hence in split order within a unit. Nothing here grows with the batch.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/int_math.h"

namespace flash_mla {

struct alignas(16) ScheduleHeader {
  std::int32_t magic;         // kScheduleMagic
  std::int32_t shape_hash;    // of what Work says but the lengths: see layout.h
  std::int32_t lengths_hash;  // of cache_seqlens and cu_seqlens_q, see layout.h
  std::int32_t batch;
  std::int32_t num_parts;
  std::int32_t num_slots;  // partials in use
  std::int32_t spare[2];
};

struct alignas(16) PartRecord {  // read 16 bytes at a time
  std::int32_t request;          // position where the part begins
  std::int32_t sub;
  std::int32_t block;            // > 0: the part begins inside a unit that an earlier part began
  std::int32_t first_slot;       // slot of the part's first partial, if it has any
  std::int32_t head_first_part;  // block > 0: the parts that share that unit, first to last; else this part
  std::int32_t head_last_part;
  std::int32_t spare[2];
};

static_assert(sizeof(ScheduleHeader) == 32 && sizeof(PartRecord) == 32);

inline constexpr std::int32_t kScheduleMagic = 0x464d4c41;  // "FMLA"

}  // namespace flash_mla
