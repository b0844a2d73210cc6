// The copy engine on plain bytes, both ways between global and shared memory. Asynchronous; what ordinary instructions
// wrote to the bytes must be fenced (fence.h).
#pragma once

#include <cstdint>

#include "cuda/ptx/faults.h"
#include "cuda/ptx/mbarrier.h"
#include "cuda/ptx/shared_address.h"

namespace flash_mla::ptx {

// Both addresses and `bytes` are multiples of 16, here and below. The barrier has been told to expect the bytes.
__device__ __forceinline__ void bulk_load(void* to, const void* from, std::uint32_t bytes, Barrier& delivered) {
  delay_copies();
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(delivered.word()))
               : "memory");
}

// A thread waits for its own stores.
__device__ __forceinline__ void bulk_store(void* to, const void* from, std::uint32_t bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(shared_address(from)),
               "r"(bytes)
               : "memory");
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// The shared memory of all earlier stores has been read and may be written again.
__device__ __forceinline__ void wait_for_bulk_reads() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
// All earlier stores are done.
__device__ __forceinline__ void wait_for_bulk_stores() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

}  // namespace flash_mla::ptx
