// What a backend offers to the API. One object of static lifetime per backend, without state that a caller can see, so
// every call is thread-safe. Arguments have been validated.
#pragma once

#include <cstdint>
#include <span>

#include "core/problem.h"
#include "flash_mla/info.h"
#include "flash_mla/plan.h"
#include "flash_mla/status.h"
#include "flash_mla/types.h"

namespace flash_mla {

// How a backend wants a problem cut up.
struct PlanTuning {
  std::int32_t num_parts = 0;      // respects PlanConfig::num_parts when that is given
  std::int32_t rows_per_unit = 0;  // packed rows that one part takes at a time
  std::int32_t cost_fixed = 0;     // cost model, see schedule/cost.h
  std::int32_t cost_block = 0;
  std::int32_t cost_merge = 0;
  std::int32_t cost_partial = 0;
  std::int32_t few_blocks = 0;
  std::int64_t scratch_bytes = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  [[nodiscard]] virtual BackendInfo info() const noexcept = 0;
  [[nodiscard]] virtual std::span<const KernelInfo> kernels() const noexcept = 0;
  [[nodiscard]] virtual Result<DeviceInfo> device_info(int index) const noexcept = 0;

  [[nodiscard]] virtual Result<PlanTuning> tune(const PlanConfig& config) const noexcept = 0;
  virtual Status schedule(const Plan& plan, const BatchView& batch, void* schedule_memory,
                          Stream stream) const noexcept = 0;
  // schedule/num_splits.h; num_splits [batch + 1].
  virtual Status num_splits(const Plan& plan, const void* schedule_memory, std::int32_t batch, std::int32_t* num_splits,
                            Stream stream) const noexcept = 0;
  virtual Status decode(const Plan& plan, const DecodeProblem& problem, const void* schedule_memory, void* scratch,
                        Stream stream) const noexcept = 0;
  virtual Status merge(const MergeProblem& problem, Device device, Stream stream) const noexcept = 0;
  virtual Status append(const AppendProblem& problem, Device device, Stream stream) const noexcept = 0;
  virtual Status copy_pages(const CopyPagesProblem& problem, Device device, Stream stream) const noexcept = 0;

  // Storage for PagedKvCache.
  [[nodiscard]] virtual Result<void*> allocate(std::int64_t bytes, Device device) const noexcept = 0;
  virtual void deallocate(void* data, Device device) const noexcept = 0;
  // Host memory to the device's memory and back, complete when the call returns for the CPU, in stream order otherwise.
  virtual Status copy_to_device(void* to, const void* from, std::int64_t bytes, Device device,
                                Stream stream) const noexcept = 0;
};

// The library's backends. cuda_backend() is null in a build without CUDA.
[[nodiscard]] const Backend* cpu_backend() noexcept;
[[nodiscard]] const Backend* cuda_backend() noexcept;

// Lets api/plan fill in a Plan and the backends read its tuning.
struct PlanAccess {
  static PlanConfig& config(Plan& plan) noexcept { return plan.config_; }
  static void set_backend(Plan& plan, const Backend* backend) noexcept { plan.backend_ = backend; }
  static void set_sizes(Plan& plan, std::int64_t schedule_bytes, std::int64_t scratch_bytes) noexcept {
    plan.schedule_bytes_ = schedule_bytes;
    plan.scratch_bytes_ = scratch_bytes;
  }
  static void set_tuning(Plan& plan, const PlanTuning& tuning) noexcept {
    plan.num_parts_ = tuning.num_parts;
    plan.rows_per_unit_ = tuning.rows_per_unit;
    plan.cost_fixed_ = tuning.cost_fixed;
    plan.cost_block_ = tuning.cost_block;
    plan.cost_merge_ = tuning.cost_merge;
    plan.cost_partial_ = tuning.cost_partial;
    plan.few_blocks_ = tuning.few_blocks;
  }
  static std::int32_t cost_fixed(const Plan& plan) noexcept { return plan.cost_fixed_; }
  static std::int32_t cost_block(const Plan& plan) noexcept { return plan.cost_block_; }
  static std::int32_t cost_merge(const Plan& plan) noexcept { return plan.cost_merge_; }
  static std::int32_t cost_partial(const Plan& plan) noexcept { return plan.cost_partial_; }
  static std::int32_t few_blocks(const Plan& plan) noexcept { return plan.few_blocks_; }
};

}  // namespace flash_mla
