// The scheduler's view of a decode problem.
#pragma once

#include "core/problem.h"
#include "schedule/work.h"

namespace flash_mla::cuda {

inline Work work_of(const BatchView& batch, std::int32_t num_heads_q, std::int32_t num_heads_kv, bool causal,
                    std::int32_t rows_per_unit) noexcept {
  Work work;
  work.batch = batch.batch;
  work.seqlen_q = batch.seqlen_q;
  work.cache_seqlens = batch.cache_seqlens;
  work.cache_seqlens_stride = batch.cache_seqlens_stride;
  work.cu_seqlens_q = batch.cu_seqlens_q;
  work.heads_per_kv = num_heads_q / num_heads_kv;
  work.num_heads_kv = num_heads_kv;
  work.rows_per_unit = rows_per_unit;
  work.causal = causal;
  return work;
}

inline Work work_of(const DecodeProblem& problem, std::int32_t rows_per_unit) noexcept {
  return work_of(problem.batch, problem.num_heads_q, problem.num_heads_kv, problem.causal, rows_per_unit);
}

}  // namespace flash_mla::cuda
