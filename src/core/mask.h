// Which tokens a row sees: a prefix of the request, so one count says it all.
//
//   visible(query j of s_q) = causal ? length - s_q + j + 1 : length        (bottom-right aligned), within 0 .. length
//
// Used by the scheduler (blocks that a unit needs) and by every backend (columns of a block that it masks). Tokens at
// or past `visible` may hold NaN or Inf: their weights are set to 0 and their values must not be multiplied.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/int_math.h"

namespace flash_mla {

FLASH_MLA_HOST_DEVICE constexpr std::int32_t visible_tokens(std::int32_t length, std::int32_t num_queries,
                                                            std::int32_t query, bool causal) {
  return causal ? min_of(length, max_of(length - num_queries + query + 1, 0)) : length;
}

}  // namespace flash_mla
