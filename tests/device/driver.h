// The driver's functions, asked for at run time, so that the program starts without a driver.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

#include "device/gpu.h"

namespace flash_mla::test {

template <class Function>
Function* driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  FLASH_MLA_REQUIRE(cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found));
#else
  FLASH_MLA_REQUIRE(cudaGetDriverEntryPoint(name, &function, cudaEnableDefault, &found));
#endif
  if (found != cudaDriverEntryPointSuccess) throw std::runtime_error(std::string("the driver has no ") + name);
  return reinterpret_cast<Function*>(function);
}

// Calls a function of the driver; throws when it fails.
template <class Function, class... Arguments>
void call(Function* function, const char* name, Arguments... arguments) {
  if (const CUresult result = function(arguments...); result != CUDA_SUCCESS) {
    throw std::runtime_error(std::string(name) + " failed with " + std::to_string(static_cast<int>(result)));
  }
}
#define FLASH_MLA_DRIVER(name, ...) call(driver_function<decltype(name)>(#name), #name, __VA_ARGS__)

}  // namespace flash_mla::test
