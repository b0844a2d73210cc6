#include "cuda/driver.h"

#include <cuda_runtime_api.h>

#include "core/error.h"
#include "cuda/runtime.h"

namespace flash_mla::cuda {
namespace {

Status find_address(const char* name, void** function) noexcept {
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  FLASH_MLA_CUDA_TRY(cudaGetDriverEntryPointByVersion, name, function, 12000, cudaEnableDefault, &found);
#else
  FLASH_MLA_CUDA_TRY(cudaGetDriverEntryPoint, name, function, cudaEnableDefault, &found);
#endif
  if (found == cudaDriverEntryPointSuccess && *function != nullptr) return {};
  int version = 0;
  cudaDriverGetVersion(&version);
  return make_error(StatusCode::unsupported, "the driver (CUDA %d.%d) has no %s; CUDA 12.0 or later is needed",
                    version / 1000, version % 1000 / 10, name);
}

template <class Function>
Status find(const char* name, Function* function) noexcept {
  void* address = nullptr;
  FLASH_MLA_TRY(find_address(name, &address));
  *function = reinterpret_cast<Function>(address);
  return {};
}

Status find_all(Driver* driver) noexcept {
  FLASH_MLA_TRY(find("cuTensorMapEncodeTiled", &driver->encode_tensor_map));
  FLASH_MLA_TRY(find("cuTensorMapReplaceAddress", &driver->replace_address));
  FLASH_MLA_TRY(find("cuCtxGetId", &driver->context_id));
  return find("cuLaunchKernelEx", &driver->launch);
}

}  // namespace

Driver::Driver() noexcept { status = find_all(this); }

const Driver& Driver::get() noexcept {
  static const Driver driver;
  return driver;
}

}  // namespace flash_mla::cuda
