// Warps and warpgroups (4 consecutive warps): registers moved between roles, barriers among some of the warps.
#pragma once

#include <cstdint>

#include "cuda/ptx/faults.h"

namespace flash_mla::ptx {

// Sets the calling warpgroup's registers a thread. Raising waits until others have given theirs back.
template <int Registers>
__device__ __forceinline__ void raise_registers() {
  static_assert(Registers % 8 == 0 && Registers >= 24 && Registers <= 256);
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ __forceinline__ void lower_registers() {
  static_assert(Registers % 8 == 0 && Registers >= 24 && Registers <= 256);
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}

// Named barrier `id` (1 .. 15; 0 is __syncthreads): `threads` threads in whole warps meet. `caller` is left to its
// default.
__device__ __forceinline__ void sync_threads(int id, int threads,
                                             std::uint32_t caller = place_named(__builtin_FUNCTION())) {
  if (left_out(Operation::meet, caller)) return;
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// Arrives without waiting; the counterpart waits with sync_threads.
__device__ __forceinline__ void arrive_threads(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// A value that all lanes of a converged warp have, in a form that the compiler knows to be the same for all: addresses
// made from it are computed once for the warp, in the registers where wgmma wants its descriptors.
__device__ __forceinline__ int uniform(int value) { return __shfl_sync(0xffffffffu, value, 0); }

// 2^x, flushing subnormal results to zero; 2^-inf = 0, NaN stays NaN.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace flash_mla::ptx
