// The units of one request, grouped in runs of units that need equally many blocks.
//
// Under a causal mask later bundles see more: blocks(bundle) never decreases, and the first bundle that needs v blocks
// is
//   first(v) = floor(max(0, (v - 1) * 64 - length + s_q) * heads_per_kv / rows_per_unit)
// so a request has at most s_q / 64 + 2 runs per kv head, one for usual decoding. Used by the partition, host and
// device.
#pragma once

#include <cstdint>

#include "core/divisor.h"
#include "core/host_device.h"
#include "core/int_math.h"
#include "schedule/work.h"

namespace flash_mla {

// Work and what dividing rows into units takes, so that the device has no division to do.
struct UnitWork : Work {
  Divisor per_unit;
  std::int32_t last_query;  // of a request's first bundle, if it has several

  FLASH_MLA_HOST_DEVICE UnitWork(const Work& work)
      : Work(work),
        per_unit(static_cast<std::uint32_t>(rows_per_unit)),
        last_query((rows_per_unit - 1) / heads_per_kv) {}

  FLASH_MLA_HOST_DEVICE std::int32_t bundles_of(std::int32_t rows) const {
    return static_cast<std::int32_t>(
        per_unit.quotient(static_cast<std::uint32_t>(max_of(rows, 0)) + rows_per_unit - 1u));
  }
};

// A unit found by its offset along the weights of a request's units.
struct UnitAt {
  std::int32_t sub = 0;
  std::int32_t blocks = 0;
  std::int64_t offset = 0;  // within the unit, 0 <= offset < its weight
  std::int32_t units = 0;   // of the request
};

class RequestUnits {
 public:
  RequestUnits() = default;  // none
  FLASH_MLA_HOST_DEVICE RequestUnits(const UnitWork& work, std::int32_t request)
      : heads_(work.num_heads_kv), heads_per_kv_(work.heads_per_kv), per_unit_(work.per_unit) {
    const std::int32_t length = work.length(request), queries = work.queries(request), rows = queries * heads_per_kv_;
    bundles_ = work.bundles_of(rows);
    if (bundles_ == 0) return;
    lead_ = std::int64_t{queries} - length;
    max_blocks_ = min_blocks_ = Work::blocks_of(length);
    if (work.causal && bundles_ > 1) {
      min_blocks_ = Work::blocks_of(visible_tokens(length, queries, work.last_query, true));
    }
  }

  FLASH_MLA_HOST_DEVICE std::int32_t count() const { return heads_ * bundles_; }
  FLASH_MLA_HOST_DEVICE std::int32_t max_blocks() const { return max_blocks_; }

  // Sum over the units of weight(blocks of the unit).
  template <class Weight>
  FLASH_MLA_HOST_DEVICE std::int64_t total(Weight weight) const {
    return heads_ * head_total(weight);
  }

  // The unit at 0 <= offset < total(weight).
  template <class Weight>
  FLASH_MLA_HOST_DEVICE UnitAt find(std::int64_t offset, Weight weight) const {
    if (count() == 1) return {0, max_blocks_, offset, 1};  // as usual, past what follows
    std::int32_t first_sub = 0;
    if (heads_ > 1) {
      const std::int64_t per_head = head_total(weight);
      first_sub = static_cast<std::int32_t>(offset / per_head) * bundles_;
      offset %= per_head;
    }
    std::int32_t first = 0, blocks = min_blocks_;
    FLASH_MLA_NO_UNROLL for (; blocks < max_blocks_; ++blocks) {
      const std::int32_t next = first_bundle(blocks + 1);
      const std::int64_t run = (next - first) * weight(blocks);
      if (offset < run) break;
      offset -= run;
      first = next;
    }
    const std::int64_t unit = weight(blocks);
    if (offset < unit) return {first_sub + first, blocks, offset, count()};
    const std::int64_t index = offset / unit;
    return {first_sub + first + static_cast<std::int32_t>(index), blocks, offset - index * unit, count()};
  }

 private:
  // The first bundle that needs `blocks` > min_blocks_ blocks.
  FLASH_MLA_HOST_DEVICE std::int32_t first_bundle(std::int32_t blocks) const {
    const std::int64_t query = max_of((blocks - std::int64_t{1}) * kBlockTokens + lead_, std::int64_t{0});
    return static_cast<std::int32_t>(
        per_unit_.quotient(static_cast<std::uint32_t>(query) * heads_per_kv_));  // query < s_q
  }

  template <class Weight>
  FLASH_MLA_HOST_DEVICE std::int64_t head_total(Weight weight) const {
    std::int64_t total = 0;
    std::int32_t first = 0;
    FLASH_MLA_NO_UNROLL for (std::int32_t blocks = min_blocks_; blocks < max_blocks_; ++blocks) {
      const std::int32_t next = first_bundle(blocks + 1);
      total += (next - first) * weight(blocks);
      first = next;
    }
    return total + (bundles_ - first) * weight(max_blocks_);
  }

  std::int32_t heads_ = 0, heads_per_kv_ = 1;
  Divisor per_unit_;
  std::int32_t bundles_ = 0;
  std::int32_t min_blocks_ = 0, max_blocks_ = 0;  // of the first and of the last bundle
  std::int64_t lead_ = 0;                         // query token q sees token t if t <= q - lead
};

}  // namespace flash_mla
