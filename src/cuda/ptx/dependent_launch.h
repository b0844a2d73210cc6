// Programmatic dependent launch: a kernel launched with the attribute may begin while the one before it still runs.
#pragma once

namespace flash_mla::ptx {

// The next kernel in the stream may begin, if it was launched with the attribute.
__device__ __forceinline__ void launch_dependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

// Waits until the kernels before this one have finished and what they wrote is visible; returns at once in a kernel
// that was launched without the attribute. Every thread block must call it, or this kernel could finish before them and
// let the one behind it begin too early.
__device__ __forceinline__ void wait_for_prerequisites() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

}  // namespace flash_mla::ptx
