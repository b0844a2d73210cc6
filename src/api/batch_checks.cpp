#include "api/batch_checks.h"

#include "api/limits.h"
#include "api/message.h"

namespace flash_mla {

Status check_plan_made(const Plan& plan) noexcept {
  if (plan.backend()) return {};
  return invalid("plan is default-constructed; make it with flash_mla::plan()");
}

Status check_batch(const Plan& plan, const Tensor& cache_seqlens, const Tensor& cu_seqlens_q,
                   BatchView* batch) noexcept {
  const PlanConfig& config = plan.config();
  FLASH_MLA_RETURN_IF_ERROR(check_form(cache_seqlens, 1, "[b]", DType::i32, config.device));
  const std::int64_t b = cache_seqlens.view.shape[0];
  if (b > config.max_batch) {
    return invalid("cache_seqlens.shape[0] is ", b, "; the plan allows max_batch = ", config.max_batch);
  }
  FLASH_MLA_RETURN_IF_ERROR(check_memory<1>(cache_seqlens, {}));

  *batch = {};
  batch->batch = static_cast<std::int32_t>(b);
  batch->cache_seqlens = static_cast<const std::int32_t*>(cache_seqlens.view.data);
  if (!cu_seqlens_q.view.given()) return {};

  FLASH_MLA_RETURN_IF_ERROR(check_form(cu_seqlens_q, 1, "[b + 1]", DType::i32, config.device));
  FLASH_MLA_RETURN_IF_ERROR(check_dim(cu_seqlens_q, 0, b + 1, "one more than cache_seqlens.shape[0]"));
  FLASH_MLA_RETURN_IF_ERROR(check_memory<1>(cu_seqlens_q, {}));
  batch->cu_seqlens_q = static_cast<const std::int32_t*>(cu_seqlens_q.view.data);
  return {};
}

Status check_uniform_queries(const Plan& plan, std::int64_t batch, std::int64_t seqlen_q, const char* name) noexcept {
  const PlanConfig& config = plan.config();
  if (seqlen_q < 1 || seqlen_q > config.max_seqlen_q) {
    return invalid(name, " is ", seqlen_q, "; the plan allows 1 to max_seqlen_q = ", config.max_seqlen_q);
  }
  if (batch * seqlen_q > config.max_total_q) {
    return invalid(name, " is ", seqlen_q, ", which for ", batch, " requests (cache_seqlens.shape[0]) makes ",
                   batch * seqlen_q, " query tokens; the plan allows max_total_q = ", config.max_total_q);
  }
  return {};
}

Status check_lengths(const Plan& plan, const BatchView& batch, std::int64_t total_q,
                     const char* total_q_name) noexcept {
  for (std::int64_t r = 0; r < batch.batch; ++r) {
    const std::int64_t length = batch.cache_seqlens[r * batch.cache_seqlens_stride];
    if (length < 0) return invalid("cache_seqlens[", r, "] is ", length, "; lengths must be >= 0");
    if (length > kMaxLength_tokens) {
      return invalid("cache_seqlens[", r, "] is ", length, "; the longest request is ", kMaxLength_tokens, " tokens");
    }
  }
  const std::int32_t* cu = batch.cu_seqlens_q;
  if (!cu) return {};
  if (cu[0] != 0) return invalid("cu_seqlens_q[0] is ", cu[0], "; expected 0");
  const std::int64_t bound = plan.config().max_seqlen_q;
  for (std::int64_t r = 0; r < batch.batch; ++r) {
    if (cu[r + 1] < cu[r]) {
      return invalid("cu_seqlens_q[", r + 1, "] is ", cu[r + 1], ", less than cu_seqlens_q[", r, "] = ", cu[r],
                     "; the sums must not fall");
    }
    if (cu[r + 1] - cu[r] > bound) {
      return invalid("cu_seqlens_q[", r + 1, "] is ", cu[r + 1], ", which gives request ", r, " ", cu[r + 1] - cu[r],
                     " query tokens; the plan allows max_seqlen_q = ", bound);
    }
    if (cu[r + 1] > total_q) {
      return invalid("cu_seqlens_q[", r + 1, "] is ", cu[r + 1], "; expected at most ", total_q_name, " = ", total_q);
    }
  }
  return {};
}

}  // namespace flash_mla
