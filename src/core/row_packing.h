// (query token, head) <-> row. All query heads that share a kv head are rows of one matrix:
//
//   row = query * heads_per_kv + head_in_group        head = kv_head * heads_per_kv + head_in_group
//
// so that a block of the cache is read once for all of them.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace flash_mla {

struct QueryHead {
  std::int32_t query = 0;  // query token of the request
  std::int32_t head = 0;   // query head, of all kv heads
};

FLASH_MLA_HOST_DEVICE constexpr QueryHead unpack_row(std::int32_t row, std::int32_t kv_head,
                                                     std::int32_t heads_per_kv) {
  return {row / heads_per_kv, kv_head * heads_per_kv + row % heads_per_kv};
}

}  // namespace flash_mla
