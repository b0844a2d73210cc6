#include "cuda/runtime.h"

#include "core/error.h"

namespace flash_mla::cuda {

Status check(cudaError_t error, const char* call) noexcept {
  if (error == cudaSuccess) return {};
  cudaGetLastError();
  const StatusCode code = error == cudaErrorMemoryAllocation ? StatusCode::out_of_memory : StatusCode::device_error;
  return make_error(code, "%s failed: %s (%s)", call, cudaGetErrorString(error), cudaGetErrorName(error));
}

DeviceGuard::DeviceGuard(int device) noexcept {
  int current = 0;
  status_ = check(cudaGetDevice(&current), "cudaGetDevice");
  if (!status_.ok() || current == device) return;
  status_ = check(cudaSetDevice(device), "cudaSetDevice");
  if (status_.ok()) previous_ = current;
}

DeviceGuard::~DeviceGuard() {
  if (previous_ >= 0) cudaSetDevice(previous_);
}

}  // namespace flash_mla::cuda
