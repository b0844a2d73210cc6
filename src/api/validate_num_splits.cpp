// num_splits: a schedule, and the counts that are read out of it.
#include "api/batch_checks.h"
#include "api/limits.h"
#include "api/message.h"
#include "api/schedule_checks.h"
#include "api/tensor_checks.h"
#include "api/validate.h"

namespace flash_mla {

Status validate_num_splits(const Plan& plan, const MemoryView& schedule_memory, const TensorView& counts) noexcept {
  FLASH_MLA_RETURN_IF_ERROR(check_plan_made(plan));
  const Device device = plan.config().device;
  const Tensor num_splits{"num_splits", counts};
  FLASH_MLA_RETURN_IF_ERROR(check_form(num_splits, 1, "[b + 1]", DType::i32, device));
  if (counts.shape[0] < 1 || counts.shape[0] > kInt32Max) {
    return invalid("num_splits.shape[0] is ", counts.shape[0], "; expected b + 1");
  }
  FLASH_MLA_RETURN_IF_ERROR(check_memory<1>(num_splits, {.written = true}));
  FLASH_MLA_RETURN_IF_ERROR(check_lent_memory("schedule_memory", schedule_memory, plan.schedule_bytes(), 16, device));
  FLASH_MLA_RETURN_IF_ERROR(check_apart(
      reach_of(num_splits), reach_of("schedule_memory", {schedule_memory.data, plan.schedule_bytes(), device})));
  return host_readable(device) ? check_schedule_made(plan, schedule_memory.data) : Status();
}

}  // namespace flash_mla
