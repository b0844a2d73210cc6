// Fences between what ordinary instructions and what the asynchronous units (copy engine, tensor cores) see.
#pragma once

#include "cuda/ptx/faults.h"

namespace flash_mla::ptx {

// Ordinary shared-memory accesses of this thread before it are visible to the copy engine's and tensor cores' accesses
// that come after it (or after a barrier behind it). `caller` is left to its default.
__device__ __forceinline__ void fence_async_shared(std::uint32_t caller = place_named(__builtin_FUNCTION())) {
  if (left_out(Operation::fence, caller)) return;
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// The same for global memory, of what this thread wrote or saw written.
__device__ __forceinline__ void fence_async_global(std::uint32_t caller = place_named(__builtin_FUNCTION())) {
  if (left_out(Operation::fence, caller)) return;
  asm volatile("fence.proxy.async.global;" ::: "memory");
}

// This thread's writes to global memory have arrived there, for the whole device, before what it does next.
__device__ __forceinline__ void fence_device() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

// Initialised barriers become visible to the copy engine.
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

}  // namespace flash_mla::ptx
