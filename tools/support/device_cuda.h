// Memory of a CUDA device for the program. In a build without CUDA the function throws.
#pragma once

#include <memory>

#include "support/device.h"

namespace flash_mla::tools {

std::unique_ptr<DeviceContext> open_cuda_device(int index);

}  // namespace flash_mla::tools
