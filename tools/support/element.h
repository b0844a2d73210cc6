// Elements of the float types, made fast enough to fill gigabytes, and the names of these types.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "flash_mla/types.h"
#include "support/errors.h"

namespace flash_mla::tools {

inline std::uint16_t bf16_bits(float value) noexcept {  // finite values only
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline void store_element(DType dtype, void* base, std::int64_t index, float value) noexcept {
  if (dtype == DType::f32) {
    static_cast<float*>(base)[index] = value;
  } else if (dtype == DType::bf16) {
    static_cast<std::uint16_t*>(base)[index] = bf16_bits(value);
  } else {
    const auto half = static_cast<_Float16>(value);
    std::memcpy(static_cast<std::uint16_t*>(base) + index, &half, sizeof half);
  }
}

inline DType parse_dtype(std::string_view name) {
  for (DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    if (name == to_string(dtype)) return dtype;
  }
  throw InputError(fmt::format("--dtype {}: must be bf16, f16 or f32", name));
}

}  // namespace flash_mla::tools
