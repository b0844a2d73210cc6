// Vocabulary of the public API: element types, devices, strided views of the caller's memory. The library owns none of
// the memory that a view describes and keeps no view after a call returns (asynchronous backends: after the work that
// the call enqueued has finished).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "flash_mla/export.h"

namespace flash_mla {

enum class DType : std::uint8_t { f32 = 0, bf16 = 1, f16 = 2, i32 = 3, i64 = 4 };

[[nodiscard]] FLASH_MLA_API const char* to_string(DType dtype) noexcept;
[[nodiscard]] constexpr int size_in_bytes(DType dtype) noexcept {
  switch (dtype) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::i64:
      return 8;
    case DType::bf16:
    case DType::f16:
      return 2;
  }
  return 0;
}

enum class DeviceType : std::uint8_t { cpu = 0, cuda = 1 };

[[nodiscard]] FLASH_MLA_API const char* to_string(DeviceType type) noexcept;

struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;  // ordinal among the devices of that type; 0 on the CPU
  friend constexpr bool operator==(const Device&, const Device&) = default;
};

// A strided view of an n-dimensional array. Strides count elements, not bytes, and may be anything that the function
// that takes the view documents (negative strides never). A default-constructed view means "not given".
struct TensorView {
  static constexpr int kMaxRank = 5;

  void* data = nullptr;
  DType dtype = DType::f32;
  Device device = {};
  int rank = 0;
  std::array<std::int64_t, kMaxRank> shape = {};
  std::array<std::int64_t, kMaxRank> strides = {};

  [[nodiscard]] constexpr bool given() const noexcept { return rank != 0; }

  // Row-major view without gaps. More than kMaxRank dimensions give a view that is not given().
  static constexpr TensorView contiguous(void* data, DType dtype, std::initializer_list<std::int64_t> dims,
                                         Device device = {}) noexcept {
    TensorView view;
    if (dims.size() > kMaxRank) return view;
    view.data = data, view.dtype = dtype, view.device = device, view.rank = static_cast<int>(dims.size());
    int axis = 0;
    for (std::int64_t dim : dims) view.shape[axis++] = dim;
    std::int64_t stride = 1;
    for (axis = view.rank - 1; axis >= 0; --axis) {
      view.strides[axis] = stride;
      stride *= view.shape[axis];
    }
    return view;
  }
};

// Untyped memory that the caller lends to a call.
struct MemoryView {
  void* data = nullptr;
  std::int64_t bytes = 0;
  Device device = {};
};

// Where asynchronous work is enqueued: a cudaStream_t on CUDA devices (null: the default stream); ignored on the CPU,
// where every call has finished when it returns.
struct Stream {
  void* handle = nullptr;
};

}  // namespace flash_mla
