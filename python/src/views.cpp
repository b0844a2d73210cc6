#include "views.h"

#include <string>
#include <utility>

namespace flash_mla::python {
namespace {

const char* exception_of(StatusCode code) {
  switch (code) {
    case StatusCode::invalid_argument:
      return "ValueError";
    case StatusCode::out_of_memory:
      return "MemoryError";
    default:
      return "RuntimeError";
  }
}

[[noreturn]] void raise(const char* kind, const std::string& message) { throw ffi::Error(kind, message, ""); }

std::string text_of(DLDataType dtype) { return ffi::DLDataTypeToString(dtype); }

DType dtype_of(const char* name, DLDataType dtype) {
  if (dtype.lanes == 1) {
    const auto is = [&](int code, int bits) { return dtype.code == code && dtype.bits == bits; };
    if (is(kDLBfloat, 16) || is(kDLUInt, 16)) return DType::bf16;
    if (is(kDLFloat, 16)) return DType::f16;
    if (is(kDLFloat, 32)) return DType::f32;
    if (is(kDLInt, 32)) return DType::i32;
    if (is(kDLInt, 64)) return DType::i64;
  }
  raise("TypeError",
        std::string(name) + " has dtype " + text_of(dtype) + "; expected bf16, f16, f32, or for indices i32 or i64");
}

}  // namespace

void raise_unless_ok(const Status& status) {
  if (!status.ok()) raise(exception_of(status.code()), status.message());
}

Device device_of(std::int64_t dlpack_type, std::int64_t index) {
  switch (dlpack_type) {
    case kDLCPU:
    case kDLCUDAHost:
      return {DeviceType::cpu, 0};
    case kDLCUDA:
    case kDLCUDAManaged:
      return {DeviceType::cuda, static_cast<int>(index)};
    default:
      raise("TypeError", "device type " + std::to_string(dlpack_type) + " of DLPack is neither a CPU nor CUDA");
  }
}

DLDevice dlpack_device_of(Device device) { return {device.type == DeviceType::cuda ? kDLCUDA : kDLCPU, device.index}; }

DLDataType dlpack_dtype_of(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return {kDLBfloat, 16, 1};
    case DType::f16:
      return {kDLFloat, 16, 1};
    case DType::f32:
      return {kDLFloat, 32, 1};
    case DType::i32:
      return {kDLInt, 32, 1};
    case DType::i64:
      return {kDLInt, 64, 1};
  }
  return {kDLOpaqueHandle, 0, 0};
}

TensorView view_of(const char* name, const ffi::TensorView& tensor) {
  TensorView view;
  if (tensor.ndim() < 1 || tensor.ndim() > TensorView::kMaxRank) {
    raise("ValueError", std::string(name) + " has " + std::to_string(tensor.ndim()) + " dimensions; expected 1 to " +
                            std::to_string(TensorView::kMaxRank));
  }
  view.data = static_cast<char*>(tensor.data_ptr()) + tensor.byte_offset();
  view.dtype = dtype_of(name, tensor.dtype());
  view.device = device_of(tensor.device().device_type, tensor.device().device_id);
  view.rank = tensor.ndim();
  for (int axis = 0; axis < view.rank; ++axis) {
    view.shape[axis] = tensor.size(axis);
    view.strides[axis] = tensor.stride(axis);
  }
  return view;
}

TensorView view_of(const char* name, const OptionalTensor& tensor) {
  return tensor.has_value() ? view_of(name, tensor.value()) : TensorView();
}

MemoryView memory_of(const char* name, const ffi::TensorView& tensor) {
  if (!tensor.is_contiguous()) raise("ValueError", std::string(name) + " is not contiguous");
  const Device device = device_of(tensor.device().device_type, tensor.device().device_id);
  return {static_cast<char*>(tensor.data_ptr()) + tensor.byte_offset(),
          static_cast<std::int64_t>(ffi::GetDataSize(tensor)), device};
}

Stream stream_of(std::int64_t stream, Device device) {
  if (device.type != DeviceType::cuda) return {};
  if (stream == kCurrentStream) return {TVMFFIEnvGetStream(kDLCUDA, device.index)};
  return {reinterpret_cast<void*>(stream)};  // NOLINT(performance-no-int-to-ptr): an address that Python holds
}

}  // namespace flash_mla::python
