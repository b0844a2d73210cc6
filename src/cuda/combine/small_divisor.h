// Division of small numbers by one that is known only at run time: a few instructions instead of some forty.
#pragma once

#include "core/host_device.h"

namespace flash_mla::cuda {

// Exact for 0 <= a < 2^20: (a + 1/2) / divisor lies at least 1 / (2 divisor) from the next whole number, and rounding
// moves it by less than a / divisor * 2^-22.
class SmallDivisor {
 public:
  FLASH_MLA_HOST_DEVICE explicit SmallDivisor(int divisor)  // >= 1
      : divisor_(divisor), reciprocal_(1.0f / static_cast<float>(divisor)) {}

  [[nodiscard]] FLASH_MLA_HOST_DEVICE int quotient(int a) const {
    return static_cast<int>((static_cast<float>(a) + 0.5f) * reciprocal_);
  }
  [[nodiscard]] FLASH_MLA_HOST_DEVICE int remainder(int a) const { return a - quotient(a) * divisor_; }
  [[nodiscard]] FLASH_MLA_HOST_DEVICE int rounded_up(int a) const { return quotient(a + divisor_ - 1); }

 private:
  int divisor_;
  float reciprocal_;
};

}  // namespace flash_mla::cuda
