// Step 1 of docs/algorithm.md: asks the backend how it wants the problem cut up, and derives the sizes of the caller's
// two memories from that.
#include "api/plan.h"

#include <algorithm>

#include "api/limits.h"
#include "api/message.h"
#include "api/registry.h"
#include "api/validate.h"
#include "core/int_math.h"
#include "schedule/layout.h"

namespace flash_mla {
namespace {

// What a backend must answer for the layouts and the scheduler to make sense.
Status check_tuning(const PlanTuning& tuning) {
  const bool sound = tuning.num_parts >= 1 && tuning.num_parts <= kMaxParts && tuning.rows_per_unit >= 1 &&
                     tuning.rows_per_unit <= 4096 && tuning.cost_fixed >= 0 && tuning.cost_block >= 1 &&
                     tuning.cost_merge >= 0 && tuning.cost_partial >= 0 && tuning.few_blocks >= 0 &&
                     tuning.scratch_bytes >= 0;
  if (sound) return {};
  return failure(StatusCode::internal, "the backend chose ", tuning.num_parts, " parts of ", tuning.rows_per_unit,
                 " rows with costs ", tuning.cost_fixed, ", ", tuning.cost_block, ", ", tuning.cost_merge, ", ",
                 tuning.cost_partial, " and few_blocks ", tuning.few_blocks);
}

// The schedule counts units in int32.
Status check_units(const PlanConfig& config, std::int64_t rows_per_unit) {
  const std::int64_t heads_per_kv = config.num_heads_q / config.num_heads_kv;
  const std::int64_t total_q = std::min(config.max_total_q, std::int64_t{config.max_batch} * config.max_seqlen_q);
  // One unit at most per request is partly filled; a kv head has at least one row, a query token at least one head.
  const std::int64_t bundles =
      total_q * heads_per_kv / rows_per_unit + std::min<std::int64_t>(config.max_batch, total_q);
  if (bundles <= kInt32Max / config.num_heads_kv) return {};
  return invalid("config.max_batch is ", config.max_batch, ", which with max_seqlen_q = ", config.max_seqlen_q,
                 ", num_heads_q = ", config.num_heads_q, " and max_total_q = ", config.max_total_q, " makes more than ",
                 kInt32Max, " units of work");
}

}  // namespace

Result<Plan> make_plan(const PlanConfig& config, const Backend& backend) noexcept {
  FLASH_MLA_RETURN_IF_ERROR(validate_plan(config));
  FLASH_MLA_RETURN_IF_ERROR(validate_device(config.device, "config.device", backend));
  PlanConfig bounds = config;
  if (bounds.max_total_q == 0) {
    bounds.max_total_q = std::min(std::int64_t{config.max_batch} * config.max_seqlen_q, kInt32Max);
  }
  const Result<PlanTuning> tuning = backend.tune(bounds);
  if (!tuning.ok()) return tuning.status();
  FLASH_MLA_RETURN_IF_ERROR(check_tuning(*tuning));
  FLASH_MLA_RETURN_IF_ERROR(check_units(bounds, tuning->rows_per_unit));

  const ScheduleLayout schedule{tuning->num_parts};
  Plan plan;
  PlanAccess::config(plan) = bounds;
  PlanAccess::set_backend(plan, &backend);
  PlanAccess::set_tuning(plan, *tuning);
  PlanAccess::set_sizes(plan, schedule.total_bytes(), tuning->scratch_bytes);
  return plan;
}

Result<Plan> plan(const PlanConfig& config) noexcept {
  const Backend* backend = nullptr;
  FLASH_MLA_RETURN_IF_ERROR(find_backend(config.device, "config.device", &backend));
  return make_plan(config, *backend);
}

}  // namespace flash_mla
