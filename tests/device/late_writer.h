// A kernel that lets its successors start at once and writes what they need late: a successor launched for overlap
// that does not wait for its predecessor reads what was there before.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace flash_mla::test {

// Enqueues it: triggers programmatic completion, idles for `delay_us`, copies `bytes` (a multiple of 4).
void copy_late(void* to, const void* from, std::int64_t bytes, int delay_us, cudaStream_t stream);

}  // namespace flash_mla::test
