// Where things lie in the caller's two memories, and the hashes by which decode recognises a schedule.
//
//   schedule memory:  header | parts[num_parts + 1]
//   scratch:          partial_out f32 [2 * num_parts, rows_per_unit, 512]
//                     | partial_lse f32 [2 * num_parts, rows_per_unit]
//                     | partial_scale f32 [2 * num_parts, rows_per_unit]
//
// A part has at most two partials (of the unit it finds begun and of the unit it leaves unfinished). partial_lse is the
// natural logarithm, -inf for an empty partial. A kernel that does not divide its partials by the sums of their weights
// puts 1 / sum (0 for an empty partial) into partial_scale; nobody else uses it.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/int_math.h"
#include "flash_mla/plan.h"
#include "schedule/records.h"
#include "schedule/work.h"

namespace flash_mla {

inline constexpr std::int64_t kRegionAlignmentBytes = 128;

struct ScheduleLayout {
  std::int32_t num_parts = 0;

  FLASH_MLA_HOST_DEVICE static constexpr std::int64_t parts_offset_bytes() { return sizeof(ScheduleHeader); }
  FLASH_MLA_HOST_DEVICE constexpr std::int64_t total_bytes() const {
    return parts_offset_bytes() + (num_parts + std::int64_t{1}) * static_cast<std::int64_t>(sizeof(PartRecord));
  }

  FLASH_MLA_HOST_DEVICE static ScheduleHeader* header(void* memory) { return static_cast<ScheduleHeader*>(memory); }
  FLASH_MLA_HOST_DEVICE static const ScheduleHeader* header(const void* memory) {
    return static_cast<const ScheduleHeader*>(memory);
  }
  FLASH_MLA_HOST_DEVICE static PartRecord* parts(void* memory) {
    return reinterpret_cast<PartRecord*>(static_cast<char*>(memory) + parts_offset_bytes());
  }
  FLASH_MLA_HOST_DEVICE static const PartRecord* parts(const void* memory) {
    return reinterpret_cast<const PartRecord*>(static_cast<const char*>(memory) + parts_offset_bytes());
  }
};

struct ScratchLayout {
  std::int32_t num_parts = 0;
  std::int32_t rows_per_unit = 0;

  FLASH_MLA_HOST_DEVICE constexpr std::int64_t slots() const { return std::int64_t{2} * num_parts; }
  FLASH_MLA_HOST_DEVICE static constexpr std::int64_t partial_out_offset_bytes() { return 0; }
  FLASH_MLA_HOST_DEVICE constexpr std::int64_t partial_lse_offset_bytes() const {
    return round_up(slots() * rows_per_unit * kLatentDim * 4, kRegionAlignmentBytes);
  }
  FLASH_MLA_HOST_DEVICE constexpr std::int64_t partial_scale_offset_bytes() const {
    return partial_lse_offset_bytes() + round_up(slots() * rows_per_unit * 4, kRegionAlignmentBytes);
  }
  FLASH_MLA_HOST_DEVICE constexpr std::int64_t total_bytes() const {
    return partial_scale_offset_bytes() + round_up(slots() * rows_per_unit * 4, kRegionAlignmentBytes);
  }

  // [slot, row, 512]
  FLASH_MLA_HOST_DEVICE static float* partial_out(void* scratch) { return static_cast<float*>(scratch); }
  // [slot, row]
  FLASH_MLA_HOST_DEVICE float* partial_lse(void* scratch) const {
    return reinterpret_cast<float*>(static_cast<char*>(scratch) + partial_lse_offset_bytes());
  }
  FLASH_MLA_HOST_DEVICE float* partial_scale(void* scratch) const {
    return reinterpret_cast<float*>(static_cast<char*>(scratch) + partial_scale_offset_bytes());
  }
};

namespace schedule_hash {

FLASH_MLA_HOST_DEVICE constexpr std::uint64_t mix(std::uint64_t x) {  // the finaliser of splitmix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}
// A hash of "entry `index` of array `tag` is `value`". A set of entries hashes to the sum, whatever the order.
FLASH_MLA_HOST_DEVICE constexpr std::uint32_t entry(std::uint32_t tag, std::uint32_t index, std::uint32_t value) {
  return static_cast<std::uint32_t>(mix((std::uint64_t{index} << 32 | value) + tag * 0x9e3779b97f4a7c15ull) >> 16);
}

}  // namespace schedule_hash

// What one request adds to lengths_hash: its length and, if queries are ragged, their number.
FLASH_MLA_HOST_DEVICE std::uint32_t lengths_hash_of_request(const Work& work, std::int32_t request) {
  const auto index = static_cast<std::uint32_t>(request);
  std::uint32_t hash = schedule_hash::entry(1, index, static_cast<std::uint32_t>(work.length(request)));
  if (work.cu_seqlens_q) {
    const std::uint32_t queries = work.cu_seqlens_q[request + 1] - work.cu_seqlens_q[request];
    hash += schedule_hash::entry(2, index, queries);
  }
  return hash;
}

// Of cache_seqlens and cu_seqlens_q of all work.batch requests.
FLASH_MLA_HOST_DEVICE std::int32_t lengths_hash(const Work& work) {
  std::uint32_t hash = 0;
  for (std::int32_t request = 0; request < work.batch; ++request) hash += lengths_hash_of_request(work, request);
  return static_cast<std::int32_t>(hash);
}

// Of everything that shapes the schedule but the lengths and the batch: a schedule may serve a padded batch. How
// uniform rows divide into query tokens and heads matters only where a mask cuts the bundles of one request
// differently.
FLASH_MLA_HOST_DEVICE std::int32_t shape_hash(const Work& work) {
  const bool ragged = work.cu_seqlens_q != nullptr;
  const std::int32_t rows = ragged ? work.heads_per_kv : work.seqlen_q * work.heads_per_kv;
  const bool mask_matters = work.causal && (ragged || rows > work.rows_per_unit);
  std::uint32_t hash = schedule_hash::entry(3, 0, ragged ? 1u : 0u);
  hash += schedule_hash::entry(3, 1, static_cast<std::uint32_t>(rows));
  hash += schedule_hash::entry(3, 2, static_cast<std::uint32_t>(work.num_heads_kv));
  hash += schedule_hash::entry(3, 3, static_cast<std::uint32_t>(work.rows_per_unit));
  hash += schedule_hash::entry(3, 4, mask_matters ? static_cast<std::uint32_t>(work.heads_per_kv) : 0u);
  return static_cast<std::int32_t>(hash);
}

}  // namespace flash_mla
