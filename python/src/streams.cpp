// Waits for a CUDA stream, for frameworks that cannot be told which stream their arrays are written on; streams.h.
#include "streams.h"

#include <tvm/ffi/error.h>
#include <tvm/ffi/function.h>

#include <cstdint>

#if FLASH_MLA_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace flash_mla::python {

bool is_capturing([[maybe_unused]] Stream stream) noexcept {
#if FLASH_MLA_WITH_CUDA
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(static_cast<cudaStream_t>(stream.handle), &status) == cudaSuccess) {
    return status != cudaStreamCaptureStatusNone;
  }
  cudaGetLastError();
  return true;
#else
  return false;
#endif
}

namespace {

void wait_for_stream([[maybe_unused]] std::int64_t stream) {
#if FLASH_MLA_WITH_CUDA
  // NOLINTNEXTLINE(performance-no-int-to-ptr): an address that Python holds
  const cudaError_t error = cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(stream));
  if (error != cudaSuccess) {
    cudaGetLastError();
    TVM_FFI_THROW(RuntimeError) << "cudaStreamSynchronize failed: " << cudaGetErrorString(error);
  }
#endif
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(synchronize, wait_for_stream)

}  // namespace flash_mla::python
