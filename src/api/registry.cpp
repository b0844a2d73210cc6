#include "api/registry.h"

#include "api/message.h"

namespace flash_mla {

#if !FLASH_MLA_WITH_CUDA
const Backend* cuda_backend() noexcept { return nullptr; }
#endif

Status find_backend(Device device, const char* argument, const Backend** backend) noexcept {
  switch (device.type) {
    case DeviceType::cpu:
      *backend = cpu_backend();
      break;
    case DeviceType::cuda:
      *backend = cuda_backend();
      break;
    default:
      return invalid(argument, ".type is ", static_cast<int>(device.type), "; expected cpu (0) or cuda (1)");
  }
  if (device.index < 0 || (device.type == DeviceType::cpu && device.index != 0)) {
    return invalid(argument, ".index is ", device.index, "; expected 0 on the CPU, >= 0 elsewhere");
  }
  if (*backend) return {};
  return failure(StatusCode::unsupported, argument, " is ", device, "; this library was built without the ",
                 to_string(device.type), " backend");
}

}  // namespace flash_mla
