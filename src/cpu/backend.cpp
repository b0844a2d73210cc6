// The CPU backend's face to the API (core/backend.h): forwards each call and turns exceptions into a Status.
#include "core/backend.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <oneapi/dnnl/dnnl.hpp>

#include "core/error.h"
#include "cpu/decode.h"
#include "cpu/device_info.h"
#include "cpu/operations.h"
#include "cpu/problem_access.h"
#include "schedule/num_splits.h"
#include "schedule/partition.h"
#include "schedule/work_of.h"

namespace flash_mla {
namespace {

// Runs f, which returns a Status or a Result; what it throws becomes the Status.
template <class F>
auto guarded(const char* call, F f) noexcept -> decltype(f()) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return make_error(StatusCode::out_of_memory, "%s: the host is out of memory", call);
  } catch (const dnnl::error& error) {
    return make_error(error.status == dnnl_out_of_memory ? StatusCode::out_of_memory : StatusCode::device_error,
                      "%s: oneDNN reports %d, %s", call, static_cast<int>(error.status), error.what());
  } catch (const std::exception& error) {
    return make_error(StatusCode::internal, "%s: %s", call, error.what());
  }
}

// The cost model in tenths of a microsecond, fitted to one core of the machine of docs/performance.md: a block costs
// 9, 14 and 43 us with 16, 32 and 128 rows.
PlanTuning costs_for(std::int32_t rows_per_unit) {
  const std::int32_t granules = rows_per_unit / cpu::kRowGranule;
  PlanTuning tuning;
  tuning.rows_per_unit = rows_per_unit;
  tuning.cost_block = 44 + 48 * granules;
  tuning.cost_fixed = 40 + 45 * granules;
  tuning.cost_merge = 50 + 30 * granules;
  return tuning;
}

class CpuBackend final : public Backend {
 public:
  BackendInfo info() const noexcept override { return {DeviceType::cpu, "cpu", true, cpu::how_it_runs(), 1}; }

  std::span<const KernelInfo> kernels() const noexcept override {
    static constexpr std::array<KernelInfo, 3> kKernels = {
        KernelInfo{DeviceType::cpu, "dense_decode bf16 576/512 oneDNN"},
        KernelInfo{DeviceType::cpu, "dense_decode f16 576/512 oneDNN"},
        KernelInfo{DeviceType::cpu, "dense_decode f32 576/512 oneDNN"}};
    return kKernels;
  }

  Result<DeviceInfo> device_info(int) const noexcept override {
    return guarded("device_info", []() -> Result<DeviceInfo> { return cpu::describe_machine(); });
  }

  Result<PlanTuning> tune(const PlanConfig& config) const noexcept override {
    return guarded("plan", [&]() -> Result<PlanTuning> {
      const std::int64_t rows = std::int64_t{config.max_seqlen_q} * (config.num_heads_q / config.num_heads_kv);
      PlanTuning tuning = costs_for(cpu::choose_rows_per_unit(rows));
      tuning.num_parts = config.num_parts > 0 ? config.num_parts : omp_get_max_threads();
      tuning.scratch_bytes = cpu::scratch_bytes(config.dtype, tuning.num_parts, tuning.rows_per_unit);
      return tuning;
    });
  }

  Status schedule(const Plan& plan, const BatchView& batch, void* schedule_memory, Stream) const noexcept override {
    const PlanConfig& config = plan.config();
    const Work work = work_of(batch, config.num_heads_q, config.num_heads_kv, config.causal, plan.rows_per_unit());
    const CostModel cost{PlanAccess::cost_fixed(plan), PlanAccess::cost_block(plan), PlanAccess::cost_merge(plan)};
    make_schedule(work, cost, plan.num_parts(), schedule_memory);
    return {};
  }

  Status num_splits(const Plan& plan, const void* schedule_memory, std::int32_t batch, std::int32_t* num_splits,
                    Stream) const noexcept override {
    count_splits(schedule_memory, plan.num_parts(), batch, num_splits);
    return {};
  }

  Status decode(const Plan& plan, const DecodeProblem& problem, const void* schedule_memory, void* scratch,
                Stream) const noexcept override {
    return guarded("decode", [&] {
      cpu::decode(plan, problem, schedule_memory, scratch);
      return Status();
    });
  }

  Status merge(const MergeProblem& problem, Device, Stream) const noexcept override {
    cpu::merge_shards(problem);
    return {};
  }

  Status append(const AppendProblem& problem, Device, Stream) const noexcept override {
    cpu::append(problem);
    return {};
  }

  Status copy_pages(const CopyPagesProblem& problem, Device, Stream) const noexcept override {
    cpu::copy_pages(problem);
    return {};
  }

  Result<void*> allocate(std::int64_t bytes, Device) const noexcept override {
    void* data = cpu::allocate_pages(bytes);
    if (!data) {
      return make_error(StatusCode::out_of_memory, "the host has no %lld bytes", static_cast<long long>(bytes));
    }
    return data;
  }

  void deallocate(void* data, Device) const noexcept override { std::free(data); }

  Status copy_to_device(void* to, const void* from, std::int64_t bytes, Device, Stream) const noexcept override {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return {};
  }
};

}  // namespace

const Backend* cpu_backend() noexcept {
  static const CpuBackend backend;
  return &backend;
}

}  // namespace flash_mla
