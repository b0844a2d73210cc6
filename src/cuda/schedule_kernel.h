// Step 2 of docs/algorithm.md on the device: make_schedule (schedule/partition.h) as one thread block, bit for bit.
#pragma once

#include <cuda_runtime_api.h>

#include "core/problem.h"
#include "flash_mla/plan.h"
#include "flash_mla/status.h"

namespace flash_mla::cuda {

// Enqueues the scheduler on the current device. Reads the lengths on the device, copies nothing to the host, and takes
// any batch up to the plan's bound. The launch depends on the plan and on batch.batch alone.
[[nodiscard]] Status launch_schedule(const Plan& plan, const BatchView& batch, void* schedule_memory,
                                     cudaStream_t stream) noexcept;

}  // namespace flash_mla::cuda
