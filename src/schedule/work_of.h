// The scheduler's view of a problem. Used by the API's checks and by every backend.
#pragma once

#include <cstdint>

#include "core/problem.h"
#include "schedule/work.h"

namespace flash_mla {

inline Work work_of(const BatchView& batch, std::int32_t num_heads_q, std::int32_t num_heads_kv, bool causal,
                    std::int32_t rows_per_unit) noexcept {
  return {.batch = batch.batch,
          .seqlen_q = batch.seqlen_q,
          .cache_seqlens = batch.cache_seqlens,
          .cache_seqlens_stride = batch.cache_seqlens_stride,
          .cu_seqlens_q = batch.cu_seqlens_q,
          .heads_per_kv = num_heads_q / num_heads_kv,
          .num_heads_kv = num_heads_kv,
          .rows_per_unit = rows_per_unit,
          .causal = causal};
}

inline Work work_of(const DecodeProblem& problem, std::int32_t rows_per_unit) noexcept {
  return work_of(problem.batch, problem.num_heads_q, problem.num_heads_kv, problem.causal, rows_per_unit);
}

}  // namespace flash_mla
