// The public merge on the GPU: results of disjoint shards of the same sequences -> one result.
#pragma once

#include <cuda_runtime_api.h>

#include "core/problem.h"
#include "flash_mla/status.h"

namespace flash_mla::cuda {

// Enqueues the merge on the current device.
[[nodiscard]] Status launch_merge(const MergeProblem& problem, cudaStream_t stream) noexcept;

}  // namespace flash_mla::cuda
