// Step 9 of docs/algorithm.md on the GPU: new tokens into their slots, and whole pages for copy-on-write.
#pragma once

#include <cuda_runtime_api.h>

#include "core/problem.h"
#include "flash_mla/status.h"

namespace flash_mla::cuda {

// Both enqueue one kernel on the current device. Slots and page ids lie on the device, so nobody has checked them:
// those out of range are skipped.
[[nodiscard]] Status launch_append(const AppendProblem& problem, cudaStream_t stream) noexcept;
[[nodiscard]] Status launch_copy_pages(const CopyPagesProblem& problem, cudaStream_t stream) noexcept;

}  // namespace flash_mla::cuda
