// The driver's functions that the library calls, asked of it at run time, so that programs start on machines without
// one.
#pragma once

#include <cuda.h>

#include "flash_mla/status.h"

namespace flash_mla::cuda {

struct Driver {
  decltype(&cuTensorMapEncodeTiled) encode_tensor_map = nullptr;
  decltype(&cuTensorMapReplaceAddress) replace_address = nullptr;
  decltype(&cuCtxGetId) context_id = nullptr;
  decltype(&cuLaunchKernelEx) launch = nullptr;
  Status status;  // not ok: some are missing

  static const Driver& get() noexcept;

 private:
  Driver() noexcept;
};

}  // namespace flash_mla::cuda
