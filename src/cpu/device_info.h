// What this machine is: for `info`.
#pragma once

#include "flash_mla/info.h"

namespace flash_mla::cpu {

[[nodiscard]] DeviceInfo describe_machine();

// "oneDNN avx512_core_bf16, Highway AVX3, OpenMP"; static storage.
[[nodiscard]] const char* how_it_runs();

}  // namespace flash_mla::cpu
