// Rules about the requests of a step and their lengths, shared by schedule and decode.
#pragma once

#include "api/tensor_checks.h"
#include "core/problem.h"
#include "flash_mla/plan.h"
#include "flash_mla/status.h"
#include "flash_mla/types.h"

namespace flash_mla {

Status check_plan_made(const Plan& plan) noexcept;

// Forms of cache_seqlens and cu_seqlens_q (not given: uniform queries). Fills in all of `batch` but seqlen_q and
// total_q, which the callers know from different arguments.
Status check_batch(const Plan& plan, const Tensor& cache_seqlens, const Tensor& cu_seqlens_q,
                   BatchView* batch) noexcept;

// Uniform queries: s_q and b * s_q against the plan. `name` is what holds s_q.
Status check_uniform_queries(const Plan& plan, std::int64_t batch, std::int64_t seqlen_q, const char* name) noexcept;

// The values, where the CPU can read them: lengths >= 0, cu_seqlens_q from 0, rising, up to at most total_q.
Status check_lengths(const Plan& plan, const BatchView& batch, std::int64_t total_q, const char* total_q_name) noexcept;

}  // namespace flash_mla
