// Step 8 of docs/algorithm.md: merge of the units that part boundaries cut: partials of their splits -> out and lse
// (core/partial.h).
#pragma once

#include <cuda_runtime_api.h>

#include "core/problem.h"
#include "flash_mla/status.h"

namespace flash_mla::cuda {

// Enqueues the merge of every cut unit on the current device, after the decode that wrote the partials.
[[nodiscard]] Status launch_combine(const DecodeProblem& problem, std::int32_t num_parts, std::int32_t rows_per_unit,
                                    const void* schedule_memory, void* scratch, cudaStream_t stream) noexcept;

}  // namespace flash_mla::cuda
