#include "cuda/kernel_launch.h"

#include "cuda/driver.h"
#include "cuda/runtime.h"

namespace flash_mla::cuda {
namespace {

// 0: no context is current.
std::uint64_t current_context(const Driver& driver) noexcept {
  unsigned long long id = 0;
  return driver.context_id(nullptr, &id) == CUDA_SUCCESS ? id : 0;
}

Status launch_by_handle(const Driver& driver, CUfunction function, const LaunchShape& shape, void** arguments,
                        cudaStream_t stream) noexcept {
  std::array<CUlaunchAttribute, 2> attributes = {};
  attributes[0].id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
  attributes[0].value.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
  attributes[1].value.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
  CUlaunchConfig config = {};
  config.gridDimX = static_cast<unsigned>(shape.thread_blocks);
  config.gridDimY = config.gridDimZ = 1;
  config.blockDimX = static_cast<unsigned>(shape.threads);
  config.blockDimY = config.blockDimZ = 1;
  config.sharedMemBytes = static_cast<unsigned>(shape.shared_memory_bytes);
  config.hStream = stream;
  config.attrs = attributes.data();
  config.numAttrs = shape.cluster > 1 ? 2 : 1;
  // The driver's errors are the runtime's, number by number.
  return check(static_cast<cudaError_t>(driver.launch(&config, function, arguments, nullptr)), "cuLaunchKernelEx");
}

Status launch_by_symbol(const void* kernel, const LaunchShape& shape, void** arguments, cudaStream_t stream) noexcept {
  FLASH_MLA_CUDA_TRY(cudaFuncSetAttribute, kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                     shape.shared_memory_bytes);
  std::array<cudaLaunchAttribute, 2> attributes = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(shape.thread_blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_memory_bytes);
  config.stream = stream;
  config.attrs = attributes.data();
  config.numAttrs = shape.cluster > 1 ? 2 : 1;
  FLASH_MLA_CUDA_TRY(cudaLaunchKernelExC, &config, kernel, arguments);
  return {};
}

}  // namespace

CUfunction KernelHandles::find(int device, std::uint64_t context) const noexcept {
  if (device >= Devices::kMostDevices || context == 0) return nullptr;
  const OnDevice& on = devices_[static_cast<std::size_t>(device)];
  return on.context.load(std::memory_order_acquire) == context ? on.function : nullptr;
}

void KernelHandles::keep(int device, std::uint64_t context, CUfunction function) noexcept {
  if (device >= Devices::kMostDevices || context == 0) return;
  OnDevice& on = devices_[static_cast<std::size_t>(device)];
  if (on.taken.exchange(true)) return;
  on.function = function;
  on.context.store(context, std::memory_order_release);
}

Status launch_kernel(const void* kernel, KernelHandles& handles, const LaunchShape& shape, void** arguments, int device,
                     cudaStream_t stream) noexcept {
  const Driver& driver = Driver::get();
  if (!driver.status.ok()) return driver.status;
  // That context's device is `device`.
  if (const CUfunction function = handles.find(device, current_context(driver))) {
    return launch_by_handle(driver, function, shape, arguments, stream);
  }
  const DeviceGuard guard(device);
  FLASH_MLA_TRY(guard.status());
  FLASH_MLA_TRY(launch_by_symbol(kernel, shape, arguments, stream));
  cudaFunction_t function = nullptr;
  FLASH_MLA_CUDA_TRY(cudaGetFuncBySymbol, &function, kernel);
  handles.keep(device, current_context(driver), function);
  return {};
}

}  // namespace flash_mla::cuda
