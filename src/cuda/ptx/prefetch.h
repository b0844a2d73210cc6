// Hints to the caches: nothing depends on them.
#pragma once

namespace flash_mla::ptx {

// Brings the line with this address to the L2 cache.
__device__ __forceinline__ void prefetch_l2(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

}  // namespace flash_mla::ptx
