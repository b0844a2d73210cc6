// The CUDA runtime's calls with their failures as Status, and the device that is current.
#pragma once

#include <cuda_runtime_api.h>

#include "flash_mla/status.h"

namespace flash_mla::cuda {

// `call` names the runtime's function in the message. Clears the runtime's last error where it can be cleared.
[[nodiscard]] Status check(cudaError_t error, const char* call) noexcept;

// Makes a device current for its lifetime.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) noexcept;
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;
  [[nodiscard]] const Status& status() const noexcept { return status_; }

 private:
  int previous_ = -1;  // -1: nothing to restore
  Status status_;
};

// Evaluates a runtime call; returns from the caller with a Status that names the call when it fails.
#define FLASH_MLA_CUDA_TRY(function, ...)                                                               \
  do {                                                                                                  \
    if (const ::flash_mla::Status status_ = ::flash_mla::cuda::check(function(__VA_ARGS__), #function); \
        !status_.ok()) {                                                                                \
      return status_;                                                                                   \
    }                                                                                                   \
  } while (false)

// Returns from the caller unless the Status is ok.
#define FLASH_MLA_TRY(expression)                                                        \
  do {                                                                                   \
    if (const ::flash_mla::Status status_ = (expression); !status_.ok()) return status_; \
  } while (false)

}  // namespace flash_mla::cuda
