#include "cuda/devices.h"

#include <cuda_runtime_api.h>

#include <cstdio>

#include "core/error.h"
#include "core/int_math.h"
#include "cuda/runtime.h"

namespace flash_mla::cuda {
namespace {

constexpr int kMajor = 9, kMinor = 0;  // compute capability that sm_90a kernels run on

struct Version {
  int major, minor;
};
Version version_of(int number) { return {number / 1000, number % 1000 / 10}; }

bool is_hopper(int device) {
  int major = 0, minor = 0;
  return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess && major == kMajor &&
         minor == kMinor;
}

double memory_share_of(int device) {
  int clock_khz = 0, bus_bits = 0, multiprocessors = 0;
  if (cudaDeviceGetAttribute(&clock_khz, cudaDevAttrMemoryClockRate, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&bus_bits, cudaDevAttrGlobalMemoryBusWidth, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess ||
      multiprocessors == 0) {
    cudaGetLastError();
    return 0;
  }
  constexpr double kTransfersPerClock = 2, kKilohertzPerMegahertz = 1000, kBitsPerByte = 8;
  return kTransfersPerClock * clock_khz / kKilohertzPerMegahertz * bus_bits / kBitsPerByte / multiprocessors;
}

}  // namespace

const Devices& Devices::get() noexcept {
  static const Devices devices;
  return devices;
}

Devices::Devices() noexcept {
  int driver_number = 0, runtime_number = 0;
  cudaRuntimeGetVersion(&runtime_number);
  cudaDriverGetVersion(&driver_number);
  const Version driver = version_of(driver_number), runtime = version_of(runtime_number);
  const auto explain = [this](auto... format) { std::snprintf(reason_.data(), reason_.size(), format...); };

  const cudaError_t error = cudaGetDeviceCount(&count_);
  cudaGetLastError();
  if (driver_number == 0) {
    explain("no NVIDIA driver was found");
  } else if (error == cudaErrorInsufficientDriver) {
    explain("the NVIDIA driver is too old: it supports CUDA %d.%d, this build needs CUDA %d.%d", driver.major,
            driver.minor, runtime.major, runtime.minor);
  } else if (error != cudaSuccess) {
    explain("cudaGetDeviceCount failed: %s", cudaGetErrorString(error));
  } else if (count_ == 0) {
    explain("no NVIDIA GPU was found");
  } else {
    for (int device = 0; device < count_; ++device) usable_ = usable_ || is_hopper(device);
    for (int device = 0; device < min_of(count_, kMostDevices); ++device) {
      memory_shares_[static_cast<std::size_t>(device)] = memory_share_of(device);
    }
    if (usable_) {
      explain("sm_90a kernels, CUDA %d.%d, driver for CUDA %d.%d", runtime.major, runtime.minor, driver.major,
              driver.minor);
    } else {
      explain("none of the %d GPUs is a Hopper GPU (compute capability %d.%d)", count_, kMajor, kMinor);
    }
    return;
  }
  count_ = 0;
}

Status Devices::require(int index) const noexcept {
  if (!usable_) return make_error(StatusCode::unsupported, "the CUDA backend cannot run here: %s", reason());
  if (index >= count_) {
    return make_error(StatusCode::invalid_argument, "device.index is %d; this machine has %d GPUs", index, count_);
  }
  if (is_hopper(index)) return {};
  return make_error(StatusCode::unsupported, "GPU %d is no Hopper GPU (compute capability %d.%d)", index, kMajor,
                    kMinor);
}

}  // namespace flash_mla::cuda
