// From the Python package's arguments to the library's: DLPack tensors as TensorView, Status as a Python exception.
// Used by every binding file. Headers of tvm-ffi and of the public API only.
#pragma once

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/optional.h>

#include <cstdint>

#include "flash_mla/flash_mla.h"

namespace flash_mla::python {

namespace ffi = tvm::ffi;
using OptionalTensor = ffi::Optional<ffi::TensorView>;

// Raises what `status` says: ValueError for arguments, MemoryError, NotImplementedError or RuntimeError.
void raise_unless_ok(const Status& status);
template <class T>
T value_or_raise(Result<T> result) {
  raise_unless_ok(result.status());
  return std::move(result).value();
}

// A tensor's dtype, device, shape and strides. uint16 counts as bf16: NumPy, which has no bf16 of its own, passes it
// so. Raises TypeError for a dtype or a device that the library does not know; `name` is the argument's.
TensorView view_of(const char* name, const ffi::TensorView& tensor);
TensorView view_of(const char* name, const OptionalTensor& tensor);

// The bytes of a contiguous tensor.
MemoryView memory_of(const char* name, const ffi::TensorView& tensor);

Device device_of(std::int64_t dlpack_type, std::int64_t index);
DLDevice dlpack_device_of(Device device);
DLDataType dlpack_dtype_of(DType dtype);

// Python passes kCurrentStream for the one that the tensors' framework is working on.
inline constexpr std::int64_t kCurrentStream = -1;
Stream stream_of(std::int64_t stream, Device device);

}  // namespace flash_mla::python
