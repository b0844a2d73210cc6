#include "unit/api/fake_backend.h"

#include "schedule/num_splits.h"
#include "schedule/partition.h"
#include "schedule/work_of.h"

namespace flash_mla::test {

BackendInfo FakeBackend::info() const noexcept {
  return {.type = type_, .name = "fake", .available = available, .reason = "it is a test's", .device_count = 1};
}

Result<PlanTuning> FakeBackend::tune(const PlanConfig& config) const noexcept {
  PlanTuning answer = tuning;
  if (config.num_parts > 0) answer.num_parts = config.num_parts;
  return answer;
}

Status FakeBackend::schedule(const Plan& plan, const BatchView& batch, void* memory, Stream) const noexcept {
  ++calls;
  last_batch = batch;
  if (type_ != DeviceType::cpu) return {};
  const PlanConfig& config = plan.config();
  const Work work = work_of(batch, config.num_heads_q, config.num_heads_kv, config.causal, plan.rows_per_unit());
  const CostModel cost{PlanAccess::cost_fixed(plan), PlanAccess::cost_block(plan), PlanAccess::cost_merge(plan)};
  make_schedule(work, cost, plan.num_parts(), memory);
  return {};
}

Status FakeBackend::num_splits(const Plan& plan, const void* memory, std::int32_t batch, std::int32_t* num_splits,
                               Stream) const noexcept {
  ++calls;
  if (type_ == DeviceType::cpu) count_splits(memory, plan.num_parts(), batch, num_splits);
  return {};
}

Status FakeBackend::decode(const Plan&, const DecodeProblem& problem, const void*, void*, Stream) const noexcept {
  ++calls;
  last_problem = problem;
  return {};
}

}  // namespace flash_mla::test
