#include "api/schedule_checks.h"

#include "api/message.h"
#include "schedule/layout.h"
#include "schedule/records.h"
#include "schedule/work_of.h"

namespace flash_mla {
namespace {

// Whether the schedule's shape is that of `work`, or covers it.
bool covers(const ScheduleHeader& header, Work work) {
  if (header.shape_hash == shape_hash(work)) return true;
  work.causal = false;
  return header.shape_hash == shape_hash(work);
}

}  // namespace

Status check_schedule_made(const Plan& plan, const void* schedule_memory) noexcept {
  const ScheduleHeader& header = *ScheduleLayout::header(schedule_memory);
  if (header.magic != kScheduleMagic) {
    return invalid("schedule_memory begins with ", header.magic, "; expected ", kScheduleMagic,
                   ", which schedule() writes there");
  }
  if (header.num_parts != plan.num_parts()) {
    return invalid("schedule_memory was made for ", header.num_parts, " parts; the plan has ", plan.num_parts());
  }
  return {};
}

Status check_schedule(const Plan& plan, const BatchView& batch, const void* schedule_memory) noexcept {
  FLASH_MLA_RETURN_IF_ERROR(check_schedule_made(plan, schedule_memory));
  const ScheduleHeader& header = *ScheduleLayout::header(schedule_memory);
  const PlanConfig& config = plan.config();
  Work work = work_of(batch, config.num_heads_q, config.num_heads_kv, config.causal, plan.rows_per_unit());
  if (!covers(header, work)) {
    return invalid("schedule_memory has shape hash ", header.shape_hash, "; expected ", shape_hash(work),
                   ": it was made for other heads, another seqlen_q, ragged instead of uniform queries, or causal");
  }
  if (header.batch < 0 || header.batch > batch.batch) {
    return invalid("schedule_memory was made for ", header.batch, " requests; cache_seqlens.shape[0] is ", batch.batch);
  }
  for (std::int32_t r = header.batch; r < batch.batch; ++r) {
    if (work.length(r) == 0) continue;
    return invalid("cache_seqlens[", r, "] is ", work.length(r), ", but schedule_memory was made for ", header.batch,
                   " requests; those past them must be empty");
  }
  work.batch = header.batch;
  if (header.lengths_hash != lengths_hash(work)) {
    return invalid("schedule_memory has lengths hash ", header.lengths_hash, "; expected ", lengths_hash(work),
                   ": it was made for other values in ", batch.cu_seqlens_q ? "cu_seqlens_q or " : "",
                   "cache_seqlens; call schedule() after they change");
  }
  return {};
}

}  // namespace flash_mla
