// Division by a number that much is divided by: with its reciprocal, a multiplication. On a GPU a division of 32 bits
// takes some twenty instructions and one of 64 bits a hundred.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace flash_mla {

class Divisor {
 public:
  static constexpr std::uint32_t kMost = 1u << 28;

  Divisor() = default;
  FLASH_MLA_HOST_DEVICE explicit Divisor(std::uint32_t value) : value_(value), reciprocal_(0xffffffffu / value) {}

  FLASH_MLA_HOST_DEVICE std::int32_t value() const { return static_cast<std::int32_t>(value_); }

  // n / value. The reciprocal is less than 2^32 / value by at most 1, so the estimate is too small by at most 1.
  FLASH_MLA_HOST_DEVICE std::uint32_t quotient(std::uint32_t n) const {
    const auto estimate = static_cast<std::uint32_t>(std::uint64_t{n} * reciprocal_ >> 32);
    return estimate + (n - estimate * value_ >= value_ ? 1 : 0);
  }

  // n / value for numbers that rarely have more than 32 bits; value <= kMost, so a remainder and a digit of base 16 do.
  FLASH_MLA_HOST_DEVICE std::uint64_t long_quotient(std::uint64_t n) const {
    if (n >> 32 == 0) return quotient(static_cast<std::uint32_t>(n));
    std::uint32_t rest = 0;
    FLASH_MLA_NO_UNROLL for (int digits = 16; digits > 0; --digits) {
      rest = rest << 4 | static_cast<std::uint32_t>(n >> 60);
      const std::uint32_t digit = quotient(rest);
      rest -= digit * value_;
      n = n << 4 | digit;  // what is left of n, then the quotient
    }
    return n;
  }

 private:
  std::uint32_t value_ = 1, reciprocal_ = 0xffffffffu;
};

}  // namespace flash_mla
