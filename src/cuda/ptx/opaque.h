// Values of which the compiler must not know where they come from.
#pragma once

namespace flash_mla::ptx {

// The same value. Addresses computed from it are computed where they are used: of a loop's unrolled loads the compiler
// would otherwise keep a pointer each, from round to round, and run out of registers.
__device__ __forceinline__ int opaque(int value) {
  asm("" : "+r"(value));
  return value;
}

// The same address, made here and not where it is used: what it is made from is loaded now.
template <class T>
__device__ __forceinline__ T* made_here(T* address) {
  asm volatile("" : "+l"(address)::"memory");
  return address;
}

}  // namespace flash_mla::ptx
