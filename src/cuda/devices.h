// Which GPUs this machine has, asked once. Without a driver or a Hopper GPU the library still works, on the CPU.
#pragma once

#include <array>
#include <cstddef>

#include "flash_mla/status.h"

namespace flash_mla::cuda {

class Devices {
 public:
  static constexpr int kMostDevices = 64;  // of which something is kept

  static const Devices& get() noexcept;

  [[nodiscard]] bool usable() const noexcept { return usable_; }
  [[nodiscard]] int count() const noexcept { return count_; }
  // Why not usable, or how it runs; lives as long as the program.
  [[nodiscard]] const char* reason() const noexcept { return reason_.data(); }
  // What a multiprocessor has of the memory's peak rate, in bytes per microsecond; 0 if that is not known.
  [[nodiscard]] double memory_share(int index) const noexcept {
    return index < kMostDevices ? memory_shares_[static_cast<std::size_t>(index)] : 0.0;
  }
  // Fails unless this device exists and the kernels run on it.
  [[nodiscard]] Status require(int index) const noexcept;

 private:
  Devices() noexcept;
  int count_ = 0;
  bool usable_ = false;  // any Hopper GPU is there
  std::array<char, 256> reason_ = {};
  std::array<double, kMostDevices> memory_shares_ = {};
};

}  // namespace flash_mla::cuda
