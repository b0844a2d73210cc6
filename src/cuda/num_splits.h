// schedule/num_splits.h on the device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "flash_mla/status.h"

namespace flash_mla::cuda {

// num_splits [batch + 1], on the current device as the schedule is.
[[nodiscard]] Status launch_num_splits(const void* schedule_memory, std::int32_t num_parts, std::int32_t batch,
                                       std::int32_t* num_splits, cudaStream_t stream) noexcept;

}  // namespace flash_mla::cuda
