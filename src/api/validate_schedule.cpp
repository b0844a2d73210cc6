// schedule: the lengths of a step and the schedule memory.
#include "api/batch_checks.h"
#include "api/limits.h"
#include "api/message.h"
#include "api/tensor_checks.h"
#include "api/validate.h"

namespace flash_mla {

Status validate_schedule(const Plan& plan, const ScheduleArgs& args, const MemoryView& schedule_memory,
                         BatchView* batch) noexcept {
  FLASH_MLA_RETURN_IF_ERROR(check_plan_made(plan));
  const PlanConfig& config = plan.config();
  const Tensor cache_seqlens{"cache_seqlens", args.cache_seqlens};
  const Tensor cu_seqlens_q{"cu_seqlens_q", args.cu_seqlens_q};
  FLASH_MLA_RETURN_IF_ERROR(check_batch(plan, cache_seqlens, cu_seqlens_q, batch));

  const bool ragged = args.cu_seqlens_q.given();
  if (args.seqlen_q < 0) return invalid("seqlen_q is ", args.seqlen_q, "; expected 0 (the plan's bound) or more");
  if (ragged && args.seqlen_q != 0) {
    return invalid("seqlen_q is ", args.seqlen_q,
                   " with cu_seqlens_q given; uniform queries need only the first, "
                   "ragged ones only the second");
  }
  batch->seqlen_q = args.seqlen_q > 0 ? args.seqlen_q : config.max_seqlen_q;
  batch->total_q = config.max_total_q;
  if (!ragged) {
    const char* name = args.seqlen_q > 0 ? "seqlen_q" : "seqlen_q (0: the plan's max_seqlen_q)";
    FLASH_MLA_RETURN_IF_ERROR(check_uniform_queries(plan, batch->batch, batch->seqlen_q, name));
    batch->total_q = std::int64_t{batch->batch} * batch->seqlen_q;
  }
  FLASH_MLA_RETURN_IF_ERROR(
      check_lent_memory("schedule_memory", schedule_memory, plan.schedule_bytes(), 16, config.device));
  const Reach memory = reach_of("schedule_memory", {schedule_memory.data, plan.schedule_bytes(), config.device});
  FLASH_MLA_RETURN_IF_ERROR(check_apart(memory, reach_of(cache_seqlens)));
  FLASH_MLA_RETURN_IF_ERROR(check_apart(memory, reach_of(cu_seqlens_q)));

  if (!host_readable(config.device)) return {};
  FLASH_MLA_RETURN_IF_ERROR(check_lengths(plan, *batch, config.max_total_q, "the plan's max_total_q"));
  if (ragged) batch->total_q = batch->cu_seqlens_q[batch->batch];
  return {};
}

}  // namespace flash_mla
