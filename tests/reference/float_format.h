// Small IEEE-754-like formats in plain arithmetic, independent of the library's own conversions:
//   value = (-1)^sign * fraction * 2^exponent, rounded to nearest, ties to even, with subnormals, infinities and NaN.
// Used by the reference, its rounding model and the problem builder.
#pragma once

#include <cstdint>

#include "flash_mla/types.h"

namespace flash_mla::reference {

struct FloatFormat {
  int exponent_bits;
  int fraction_bits;
};

inline constexpr FloatFormat kBf16 = {8, 7};
inline constexpr FloatFormat kF16 = {5, 10};

[[nodiscard]] double decode_float(FloatFormat format, std::uint32_t bits);
[[nodiscard]] std::uint32_t encode_float(FloatFormat format, double value);

// One element of a float tensor (f32, bf16, f16) as it lies in memory. `data` needs no alignment.
[[nodiscard]] double load_element(DType dtype, const void* data);
void store_element(DType dtype, void* data, double value);

// The nearest value of that type.
[[nodiscard]] double round_to(DType dtype, double value);

}  // namespace flash_mla::reference
