// The address of something in shared memory as instructions take it.
#pragma once

#include <cstdint>

namespace flash_mla::ptx {

__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

}  // namespace flash_mla::ptx
