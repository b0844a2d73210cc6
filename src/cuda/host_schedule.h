// The schedule made by the host, from lengths copied back: not for CUDA graphs.
#pragma once

#include <cuda_runtime_api.h>

#include "core/backend.h"
#include "core/problem.h"
#include "flash_mla/status.h"

namespace flash_mla::cuda {

[[nodiscard]] Status schedule_on_host(const Plan& plan, const BatchView& batch, void* schedule_memory,
                                      cudaStream_t stream) noexcept;

}  // namespace flash_mla::cuda
