// The work of a step in the scheduler's terms.
//
//   unit    (request, kv head, bundle): `rows_per_unit` packed rows against all blocks that they see
//   sub     a unit's index within its request: kv_head * bundles + bundle
//   row     query token j and head h of one kv head packed as j * heads_per_kv + h
//   block   64 tokens of one request
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/int_math.h"
#include "core/mask.h"
#include "flash_mla/plan.h"

namespace flash_mla {

struct Work {
  std::int32_t batch = 0;
  std::int32_t seqlen_q = 1;                    // uniform s_q; ignored when cu_seqlens_q is given
  const std::int32_t* cache_seqlens = nullptr;  // [batch]
  std::int64_t cache_seqlens_stride = 1;
  const std::int32_t* cu_seqlens_q = nullptr;  // [batch + 1] or null
  std::int32_t heads_per_kv = 1;
  std::int32_t num_heads_kv = 1;
  std::int32_t rows_per_unit = 64;
  bool causal = true;

  // A negative length counts as 0.
  FLASH_MLA_HOST_DEVICE std::int32_t length(std::int32_t request) const {
    return max_of(cache_seqlens[request * cache_seqlens_stride], 0);
  }
  FLASH_MLA_HOST_DEVICE std::int32_t queries(std::int32_t request) const {
    return cu_seqlens_q ? max_of(cu_seqlens_q[request + 1] - cu_seqlens_q[request], 0) : seqlen_q;
  }
  FLASH_MLA_HOST_DEVICE std::int32_t first_query(std::int32_t request) const {
    return cu_seqlens_q ? cu_seqlens_q[request] : 0;  // ragged: index into the step's query tokens
  }
  FLASH_MLA_HOST_DEVICE std::int32_t rows(std::int32_t request) const { return queries(request) * heads_per_kv; }
  // Usually one: no division on the way then.
  FLASH_MLA_HOST_DEVICE std::int32_t bundles_of(std::int32_t rows) const {
    if (rows <= rows_per_unit) return rows > 0 ? 1 : 0;
    return static_cast<std::int32_t>((static_cast<std::uint32_t>(rows) + rows_per_unit - 1u) /
                                     static_cast<std::uint32_t>(rows_per_unit));
  }
  FLASH_MLA_HOST_DEVICE static std::int32_t blocks_of(std::int32_t tokens) {  // tokens >= 0
    return static_cast<std::int32_t>((static_cast<std::uint32_t>(tokens) + (kBlockTokens - 1u)) / kBlockTokens);
  }
  FLASH_MLA_HOST_DEVICE std::int32_t bundles(std::int32_t request) const { return bundles_of(rows(request)); }
  FLASH_MLA_HOST_DEVICE std::int32_t subs(std::int32_t request) const { return bundles(request) * num_heads_kv; }

  // Tokens that query token j of a request sees.
  FLASH_MLA_HOST_DEVICE std::int32_t visible(std::int32_t request, std::int32_t query) const {
    return visible_tokens(length(request), queries(request), query, causal);
  }
  // Blocks that a bundle needs: those that its last row sees.
  FLASH_MLA_HOST_DEVICE std::int32_t blocks(std::int32_t request, std::int32_t bundle) const {
    const std::int32_t last_row = min_of(rows(request), (bundle + 1) * rows_per_unit) - 1;
    return blocks_of(visible(request, last_row / heads_per_kv));
  }
};

}  // namespace flash_mla
