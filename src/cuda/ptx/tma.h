// The copy engine (TMA): boxes of a tensor in global memory to shared memory. Elements outside the tensor arrive as
// zeros and count as delivered bytes.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <cuda/ptx>

#include "cuda/ptx/mbarrier.h"

namespace flash_mla::ptx {

// By one thread. `to` is aligned to 1024 bytes (swizzle of 128 bytes); coordinates count elements, innermost first.
template <int Rank>
__device__ __forceinline__ void tma_load(void* to, const CUtensorMap& map, const std::int32_t (&coordinates)[Rank],
                                         Barrier& delivered) {
  cuda::ptx::cp_async_bulk_tensor(cuda::ptx::space_cluster, cuda::ptx::space_global, to, &map, coordinates,
                                  delivered.word());
}

// Fetches the map itself, ahead of its first use.
__device__ __forceinline__ void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

}  // namespace flash_mla::ptx
