// Faults on purpose. A build with FLASH_MLA_FAULTS can leave out one barrier or fence, chosen at run time; it sleeps
// for random times at all of them, or keeps shared memory busy where it waits. tests/device/faults shows that tests
// notice. In every other build this is nothing.
//
// Places. Of waits and arrivals: the barrier's first byte in dynamic shared memory. Of fences and named barriers: the
// function that calls them, as a number.
#pragma once

#include <cstdint>

namespace flash_mla::ptx {

enum class Operation : int { none, wait, arrive, fence, meet };

// A name as a number (FNV-1a).
__host__ __device__ constexpr std::uint32_t place_named(const char* name) {
  std::uint32_t hash = 2166136261u;
  for (; *name != 0; ++name) hash = (hash ^ static_cast<unsigned char>(*name)) * 16777619u;
  return hash;
}

#ifdef FLASH_MLA_FAULTS

// Leaves out `operation` at places first .. last. All warps sleep now and then, for random times; or only one does, so
// that it is late and all others are not. Noise: warps that wait make loads that delay the stores of others, and copies
// find the copy engine busy.
struct Fault {
  Operation operation;
  std::uint32_t first, last;
  std::uint32_t longest_sleep_ns;
  std::int32_t sleeping_warp;  // -1: all
  bool noise;
  bool reports;  // sets fault_reached where it leaves something out
};
static __constant__ Fault selected_fault;
static __device__ int fault_reached;
static __device__ unsigned char busy_work[1 << 17];  // for the copy engine

__device__ __forceinline__ std::uint32_t place_of(const void* barrier) {
  extern __shared__ unsigned char fault_origin[];
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(barrier) - __cvta_generic_to_shared(fault_origin));
}
__device__ __forceinline__ bool left_out(Operation operation, std::uint32_t place) {
  if (selected_fault.longest_sleep_ns > 0) {
    const unsigned warp = threadIdx.x / 32;
    const unsigned random = (static_cast<unsigned>(clock64() >> 3) ^ (warp + 37 * blockIdx.x)) * 2654435761u;
    const bool sleeps = selected_fault.sleeping_warp < 0 || warp == selected_fault.sleeping_warp;
    if (sleeps && random >> 29 == 0) __nanosleep((random >> 5) % selected_fault.longest_sleep_ns);
  }
  const bool left_out =
      operation == selected_fault.operation && place >= selected_fault.first && place <= selected_fault.last;
  if (left_out && selected_fault.reports) fault_reached = 1;
  return left_out;
}

// Loads whose lanes all want the same bank, and whose results nobody awaits.
__device__ __forceinline__ void make_noise() {
  if (!selected_fault.noise) return;
  extern __shared__ unsigned char fault_origin[];
  const std::uint32_t address =
      static_cast<std::uint32_t>(__cvta_generic_to_shared(fault_origin)) + 128 * (threadIdx.x % 32);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    std::uint32_t ignored;
    asm volatile("ld.volatile.shared.u32 %0, [%1];" : "=r"(ignored) : "r"(address + 4 * i));
  }
}

// Gives the copy engine work that changes nothing, so that the next copy is late.
__device__ __forceinline__ void delay_copies() {
  if (!selected_fault.noise) return;
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(__cvta_generic_to_global(busy_work)),
               "r"(static_cast<std::uint32_t>(sizeof busy_work)));
}

#else

__device__ constexpr std::uint32_t place_of(const void*) { return 0; }
__device__ constexpr bool left_out(Operation, std::uint32_t) { return false; }
__device__ constexpr void delay_copies() {}

#endif

}  // namespace flash_mla::ptx
