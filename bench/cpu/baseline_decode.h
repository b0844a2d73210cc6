// The yardstick: decode as one would write it at first, in fp32.
#pragma once

#include "cpu/problem.h"

namespace flash_mla::bench {

// Reads problem.q_f32 and cache_f32 (already widened), writes out_f32.
void baseline_decode(Problem& problem);

}  // namespace flash_mla::bench
