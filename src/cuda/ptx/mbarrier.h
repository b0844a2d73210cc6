// Shared-memory barriers (mbarrier): arrivals and bytes that a phase still waits for. Phase n completes once all
// arrivals and announced bytes of it have come; waiting for phase n means wait(n & 1).
#pragma once

#include <cstdint>
#include <cstdio>
#include <cuda/ptx>

#include "cuda/ptx/faults.h"
#include "cuda/ptx/shared_address.h"

namespace flash_mla::ptx {

class Barrier {
 public:
  // By one thread, before any use; then fence_barrier_init() and a barrier of the thread block.
  __device__ __forceinline__ void init(std::uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&word_)), "r"(arrivals) : "memory");
  }

  // Releases what the calling thread did before.
  __device__ __forceinline__ void arrive() {
    if (left_out(Operation::arrive, place_of(this))) return;
    ::cuda::ptx::mbarrier_arrive(::cuda::ptx::sem_release, ::cuda::ptx::scope_cta, ::cuda::ptx::space_shared, &word_);
  }

  // Arrives, and announces that the copy engine will deliver `bytes` within this phase.
  __device__ __forceinline__ void arrive_expecting(std::uint32_t bytes) {
    if (left_out(Operation::arrive, place_of(this))) return;
    ::cuda::ptx::mbarrier_arrive_expect_tx(::cuda::ptx::sem_release, ::cuda::ptx::scope_cta, ::cuda::ptx::space_shared,
                                           &word_, bytes);
  }

  // Returns once a phase of this parity has completed; acquires what was released into it.
  __device__ __forceinline__ void wait(std::uint32_t parity) {
    if (left_out(Operation::wait, place_of(this))) return;
#ifdef FLASH_MLA_WATCHDOG
    const long long start = clock64();
    while (!::cuda::ptx::mbarrier_try_wait_parity(&word_, parity)) {
      if (clock64() - start > kWatchdogCycles) report_and_trap(parity);
    }
#elif defined(FLASH_MLA_FAULTS)
    while (!::cuda::ptx::mbarrier_test_wait_parity(&word_, parity)) make_noise();
#else
    while (!::cuda::ptx::mbarrier_try_wait_parity(&word_, parity)) {
    }
#endif
  }

  // Whether wait() would return at once; acquires if so.
  [[nodiscard]] __device__ __forceinline__ bool completed(std::uint32_t parity) {
    return ::cuda::ptx::mbarrier_test_wait_parity(&word_, parity);
  }

  [[nodiscard]] __device__ __forceinline__ std::uint64_t* word() { return &word_; }

 private:
#ifdef FLASH_MLA_WATCHDOG
  static constexpr long long kWatchdogCycles = 4'000'000'000;  // about two seconds
  __device__ __noinline__ void report_and_trap(std::uint32_t parity) {
    printf("flash_mla: block %d thread %d waits for ever on the barrier at %u, parity %u\n", blockIdx.x, threadIdx.x,
           shared_address(&word_), parity);
    __trap();
  }
#endif
  std::uint64_t word_;
};

}  // namespace flash_mla::ptx
