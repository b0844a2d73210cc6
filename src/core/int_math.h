// Integer helpers shared by host and device.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace flash_mla {

template <class T>
FLASH_MLA_HOST_DEVICE constexpr T ceil_div(T a, T b) {
  return a / b + (a % b > 0 ? 1 : 0);  // no sum that could overflow
}
template <class T>
FLASH_MLA_HOST_DEVICE constexpr T round_up(T a, T b) {
  return ceil_div(a, b) * b;
}
template <class T>
FLASH_MLA_HOST_DEVICE constexpr T min_of(T a, T b) {
  return a < b ? a : b;
}
template <class T>
FLASH_MLA_HOST_DEVICE constexpr T max_of(T a, T b) {
  return a > b ? a : b;
}

}  // namespace flash_mla
