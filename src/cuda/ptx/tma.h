// The copy engine (TMA): boxes of a tensor in global memory to shared memory. Elements outside the tensor arrive as
// zeros and count as delivered bytes.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "cuda/ptx/mbarrier.h"
#include "cuda/ptx/shared_address.h"

namespace flash_mla::ptx {

// By one thread. `to` is aligned to 1024 bytes (swizzle of 128 bytes); coordinates count elements, innermost first.
__device__ __forceinline__ void tma_load(void* to, const CUtensorMap& map, const std::int32_t (&at)[3],
                                         Barrier& delivered) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
      "[%5];" ::"r"(shared_address(to)),
      "l"(&map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(shared_address(delivered.word()))
      : "memory");
}
__device__ __forceinline__ void tma_load(void* to, const CUtensorMap& map, const std::int32_t (&at)[5],
                                         Barrier& delivered) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5, "
      "%6}], [%7];" ::"r"(shared_address(to)),
      "l"(&map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4]), "r"(shared_address(delivered.word()))
      : "memory");
}

// What the L2 cache does with what a load brings: the 64-bit words that createpolicy makes for these priorities.
enum class L2Priority : std::uint64_t { evict_normal = 0x1000000000000000, evict_first = 0x12F0000000000000 };

__device__ __forceinline__ void tma_load(void* to, const CUtensorMap& map, const std::int32_t (&at)[5],
                                         Barrier& delivered, L2Priority priority) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, "
      "%3, %4, %5, %6}], [%7], %8;" ::"r"(shared_address(to)),
      "l"(&map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4]), "r"(shared_address(delivered.word())),
      "l"(static_cast<std::uint64_t>(priority))
      : "memory");
}

// Brings a box to the L2 cache. A hint: nothing depends on it.
__device__ __forceinline__ void tma_prefetch(const CUtensorMap& map, const std::int32_t (&at)[5], L2Priority priority) {
  asm volatile(
      "cp.async.bulk.prefetch.tensor.5d.L2.global.tile.L2::cache_hint [%0, {%1, %2, %3, %4, %5}], %6;" ::"l"(&map),
      "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4]), "l"(static_cast<std::uint64_t>(priority))
      : "memory");
}

// Fetches the map itself, ahead of its first use.
__device__ __forceinline__ void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

}  // namespace flash_mla::ptx
