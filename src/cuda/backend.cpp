// The CUDA backend: what core/backend.h asks for, on Hopper GPUs.
#include "core/backend.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "core/error.h"
#include "core/int_math.h"
#include "cuda/cache_ops/cache_ops.h"
#include "cuda/combine/merge.h"
#include "cuda/combine/merge_params.h"
#include "cuda/combine/partials.h"
#include "cuda/devices.h"
#include "cuda/num_splits.h"
#include "cuda/runtime.h"
#include "cuda/schedule_kernel.h"
#include "cuda/sm90/common/launch.h"
#include "cuda/step_costs.h"
#include "cuda/tile/column_order.h"

namespace flash_mla {
namespace cuda {
namespace {

cudaStream_t handle(Stream stream) { return static_cast<cudaStream_t>(stream.handle); }

// Packed rows of one request's kv head, at most.
std::int64_t rows_of(const PlanConfig& config) {
  return std::int64_t{config.max_seqlen_q} * (config.num_heads_q / config.num_heads_kv);
}

// How a step is cut up. Units of at most 16 or 32 rows have a kernel of their own; else thread blocks of 64 rows share
// a unit's tokens, those of one request's kv head in equal bundles of at most four. They walk over the same blocks in
// step, so that three of four reads hit the L2 cache.
struct Geometry {
  std::int32_t rows_per_unit = 0;
  std::int32_t cohort = 0;  // thread blocks that share a unit
};

Geometry choose_geometry(const PlanConfig& config) {
  constexpr std::int64_t kMaxCohort = 4;
  const std::int64_t rows = max_of<std::int64_t>(rows_of(config), 1);
  const sm90::DecodeKernel kernel = sm90::find_kernel(config.dtype, rows, false);
  const std::int64_t row_tiles = ceil_div<std::int64_t>(rows, kernel.rows_per_thread_block);
  const auto cohort = static_cast<std::int32_t>(ceil_div(row_tiles, ceil_div(row_tiles, kMaxCohort)));
  return {cohort * kernel.rows_per_thread_block, cohort};
}

// Few enough for the kernel whose tiles have tokens as rows.
bool has_few_rows(std::int32_t rows_per_unit) { return rows_per_unit <= tile::kMaxTransposedRows; }

// Whether a plan's units, of few rows, are so few that a step's time is what their many parts wait for each other.
bool has_small_steps(const PlanConfig& config, std::int32_t num_parts, std::int32_t rows_per_unit) {
  constexpr std::int64_t kManyParts = 8;  // of a unit
  const std::int64_t units = std::int64_t{config.max_batch} * config.num_heads_kv;
  return has_few_rows(rows_per_unit) && units * kManyParts <= num_parts;
}

class CudaBackend final : public Backend {
 public:
  BackendInfo info() const noexcept override {
    const Devices& devices = Devices::get();
    return {DeviceType::cuda, "cuda", devices.usable(), devices.reason(), devices.count()};
  }

  std::span<const KernelInfo> kernels() const noexcept override {
#define FLASH_MLA_VARIANT(name, dtype, element)                  \
  KernelInfo{DeviceType::cuda, "dense_decode " #name " sm_90a"}, \
      KernelInfo{DeviceType::cuda, "few_rows_decode " #name " sm_90a"},
    static constexpr std::array kKernels = {
#include "cuda/variants.def"
    };
#undef FLASH_MLA_VARIANT
    return kKernels;
  }

  Result<DeviceInfo> device_info(int index) const noexcept override {
    FLASH_MLA_TRY(Devices::get().require(index));
    cudaDeviceProp properties;
    FLASH_MLA_CUDA_TRY(cudaGetDeviceProperties, &properties, index);
    DeviceInfo info;
    std::snprintf(info.name, sizeof info.name, "%.127s", properties.name);
    std::snprintf(info.instruction_set, sizeof info.instruction_set, "sm_90a");
    info.workers = properties.multiProcessorCount;
    info.memory_bytes = static_cast<std::int64_t>(properties.totalGlobalMem);
    info.l2_bytes = properties.l2CacheSize;
    return info;
  }

  Result<PlanTuning> tune(const PlanConfig& config) const noexcept override {
    FLASH_MLA_TRY(Devices::get().require(config.device.index));
    int multiprocessors = 0;
    FLASH_MLA_CUDA_TRY(cudaDeviceGetAttribute, &multiprocessors, cudaDevAttrMultiProcessorCount, config.device.index);
    if (config.num_parts > kMostParts) {
      return make_error(StatusCode::invalid_argument, "config.num_parts is %d; expected 0 to %d on a GPU",
                        config.num_parts, kMostParts);
    }
    const Geometry geometry = choose_geometry(config);
    PlanTuning tuning;
    tuning.num_parts = config.num_parts > 0 ? config.num_parts : max_of(multiprocessors / geometry.cohort, 1);
    tuning.rows_per_unit = geometry.rows_per_unit;
    const CostModel cost = step_costs(has_few_rows(geometry.rows_per_unit), geometry.cohort);
    tuning.cost_fixed = cost.fixed;
    tuning.cost_block = cost.per_block;
    tuning.cost_merge = cost.merge;
    tuning.cost_partial = cost.partial;
    const int thread_blocks = tuning.num_parts * geometry.cohort;
    const bool fills_device = thread_blocks <= multiprocessors && 2 * thread_blocks > multiprocessors;
    tuning.few_blocks = fills_device ? cost.few_blocks : 0;
    const bool small_steps = has_small_steps(config, tuning.num_parts, geometry.rows_per_unit);
    tuning.scratch_bytes =
        PartialsLayout{tuning.num_parts, geometry.rows_per_unit, geometry.cohort, small_steps}.total_bytes();
    return tuning;
  }

  Status schedule(const Plan& plan, const BatchView& batch, void* schedule_memory,
                  Stream stream) const noexcept override {
    const DeviceGuard guard(plan.config().device.index);
    FLASH_MLA_TRY(guard.status());
    return launch_schedule(plan, batch, schedule_memory, handle(stream));
  }

  Status num_splits(const Plan& plan, const void* schedule_memory, std::int32_t batch, std::int32_t* num_splits,
                    Stream stream) const noexcept override {
    const DeviceGuard guard(plan.config().device.index);
    FLASH_MLA_TRY(guard.status());
    return launch_num_splits(schedule_memory, plan.num_parts(), batch, num_splits, handle(stream));
  }

  Status decode(const Plan& plan, const DecodeProblem& problem, const void* schedule_memory, void* scratch,
                Stream stream) const noexcept override {
    if (problem.batch.total_q == 0) return {};
    const sm90::StepShape step{plan.num_parts(), plan.rows_per_unit(),
                               has_small_steps(plan.config(), plan.num_parts(), plan.rows_per_unit())};
    return sm90::launch_decode(problem, step, schedule_memory, scratch, plan.config().device.index, handle(stream));
  }

  Status merge(const MergeProblem& problem, Device device, Stream stream) const noexcept override {
    const DeviceGuard guard(device.index);
    FLASH_MLA_TRY(guard.status());
    return launch_merge(problem, handle(stream));
  }

  Status append(const AppendProblem& problem, Device device, Stream stream) const noexcept override {
    const DeviceGuard guard(device.index);
    FLASH_MLA_TRY(guard.status());
    return launch_append(problem, handle(stream));
  }

  Status copy_pages(const CopyPagesProblem& problem, Device device, Stream stream) const noexcept override {
    const DeviceGuard guard(device.index);
    FLASH_MLA_TRY(guard.status());
    return launch_copy_pages(problem, handle(stream));
  }

  Result<void*> allocate(std::int64_t bytes, Device device) const noexcept override {
    FLASH_MLA_TRY(Devices::get().require(device.index));
    const DeviceGuard guard(device.index);
    FLASH_MLA_TRY(guard.status());
    void* data = nullptr;
    FLASH_MLA_CUDA_TRY(cudaMalloc, &data, static_cast<std::size_t>(bytes));
    return data;
  }

  void deallocate(void* data, Device device) const noexcept override {
    const DeviceGuard guard(device.index);
    cudaFree(data);
  }

  Status copy_to_device(void* to, const void* from, std::int64_t bytes, Device device,
                        Stream stream) const noexcept override {
    const DeviceGuard guard(device.index);
    FLASH_MLA_TRY(guard.status());
    FLASH_MLA_CUDA_TRY(cudaMemcpyAsync, to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, handle(stream));
    return {};
  }
};

}  // namespace
}  // namespace cuda

const Backend* cuda_backend() noexcept {
  static const cuda::CudaBackend backend;
  return &backend;
}

}  // namespace flash_mla
