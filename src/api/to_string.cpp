// Names of the public API's enumerations.
#include "flash_mla/status.h"
#include "flash_mla/types.h"

namespace flash_mla {

const char* to_string(StatusCode code) noexcept {
  switch (code) {
    case StatusCode::ok:
      return "ok";
    case StatusCode::invalid_argument:
      return "invalid_argument";
    case StatusCode::out_of_pages:
      return "out_of_pages";
    case StatusCode::out_of_memory:
      return "out_of_memory";
    case StatusCode::unsupported:
      return "unsupported";
    case StatusCode::device_error:
      return "device_error";
    case StatusCode::internal:
      return "internal";
  }
  return "unknown status";
}

const char* to_string(DType dtype) noexcept {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
    case DType::i32:
      return "i32";
    case DType::i64:
      return "i64";
  }
  return "unknown dtype";
}

const char* to_string(DeviceType type) noexcept {
  switch (type) {
    case DeviceType::cpu:
      return "cpu";
    case DeviceType::cuda:
      return "cuda";
  }
  return "unknown device type";
}

}  // namespace flash_mla
