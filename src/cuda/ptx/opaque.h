// Values of which the compiler must not know where they come from.
#pragma once

namespace flash_mla::ptx {

// The same value. Addresses computed from it are computed where they are used: of a loop's unrolled loads the compiler
// would otherwise keep a pointer each, from round to round, and run out of registers.
__device__ __forceinline__ int opaque(int value) {
  asm("" : "+r"(value));
  return value;
}

}  // namespace flash_mla::ptx
