// Where things lie in schedule memory, and the hashes by which decode recognises a schedule.
//
//   header | parts[num_parts + 1]
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "schedule/records.h"
#include "schedule/work.h"

namespace flash_mla {

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
