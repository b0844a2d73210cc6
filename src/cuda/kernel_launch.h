// Launches of a kernel that needs much shared memory and may be set up under the end of the kernel before it.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <cstdint>

#include "cuda/devices.h"
#include "flash_mla/status.h"

namespace flash_mla::cuda {

// A kernel's handles, by device, in the first context that launched it there: to launch by a handle is quicker than by
// the host's function. Contexts have ids that are never used again, so that of a context that is gone is not mistaken.
class KernelHandles {
 public:
  // Null: none for this context.
  [[nodiscard]] CUfunction find(int device, std::uint64_t context) const noexcept;
  // The first call for a device counts.
  void keep(int device, std::uint64_t context, CUfunction function) noexcept;

 private:
  struct OnDevice {
    std::atomic<bool> taken = false;
    std::atomic<std::uint64_t> context = 0;  // 0: none yet
    CUfunction function = nullptr;           // written before `context`
  };
  std::array<OnDevice, Devices::kMostDevices> devices_;
};

struct LaunchShape {
  int thread_blocks = 0;
  int cluster = 1;  // neighbouring thread blocks that run at the same time, on neighbouring multiprocessors
  int threads = 0;
  int shared_memory_bytes = 0;
};

// Enqueues `kernel` on a stream of `device`, whichever device is current. Programmatic stream serialisation: the kernel
// itself waits for what the kernels before it do.
[[nodiscard]] Status launch_kernel(const void* kernel, KernelHandles& handles, const LaunchShape& shape,
                                   void** arguments, int device, cudaStream_t stream) noexcept;

}  // namespace flash_mla::cuda
