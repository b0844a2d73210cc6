// Where the n-th of many things lies that go round in a ring of `Places`, as a role counts along that hands them on or
// takes them one after the other.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace flash_mla::tile {

template <std::uint32_t Places>
class RingPosition {
 public:
  // The place `ahead` <= Places behind this position, and the parity of its round: of the phase in which a barrier of
  // that place says that something has come.
  [[nodiscard]] FLASH_MLA_HOST_DEVICE constexpr std::uint32_t place(std::uint32_t ahead = 0) const {
    const std::uint32_t place = place_ + ahead;
    return ahead == 0 || place < Places ? place : place - Places;
  }
  [[nodiscard]] FLASH_MLA_HOST_DEVICE constexpr std::uint32_t parity(std::uint32_t ahead = 0) const {
    return ahead == 0 || place_ + ahead < Places ? parity_ : parity_ ^ 1;
  }
  FLASH_MLA_HOST_DEVICE constexpr void advance(std::uint32_t ahead) {
    parity_ = parity(ahead);
    place_ = place(ahead);
  }

 private:
  std::uint32_t place_ = 0, parity_ = 0;
};

}  // namespace flash_mla::tile
