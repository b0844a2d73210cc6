// What an engine brings along on the CPU: aligned memory, a tensor that owns its elements, and a way to fail.
#pragma once

#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

#include "flash_mla/flash_mla.h"

namespace example {

inline void require(const flash_mla::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", flash_mla::to_string(status.code()), status.message());
  std::exit(1);
}

template <class T>
T require(flash_mla::Result<T> result) {
  require(result.status());
  return std::move(*result);
}

// Bytes aligned as schedule memory and scratch must be.
class Memory {
 public:
  explicit Memory(std::int64_t bytes) : bytes_(bytes), data_(std::aligned_alloc(128, (bytes / 128 + 1) * 128)) {}
  flash_mla::MemoryView view() const { return {data_.get(), bytes_, {}}; }

 private:
  struct Free {
    void operator()(void* data) const { std::free(data); }
  };
  std::int64_t bytes_;
  std::unique_ptr<void, Free> data_;
};

// A contiguous tensor of f32 or bf16, read and written as numbers.
class Tensor {
 public:
  Tensor(flash_mla::DType dtype, std::initializer_list<std::int64_t> dims)
      : view_(flash_mla::TensorView::contiguous(nullptr, dtype, dims)) {
    std::int64_t size = 1;
    for (std::int64_t dim : dims) size *= dim;
    if (dtype == flash_mla::DType::f32) f32_.resize(size);
    if (dtype == flash_mla::DType::bf16) bf16_.resize(size);
    view_.data = f32_.empty() ? static_cast<void*>(bf16_.data()) : f32_.data();
  }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;

  const flash_mla::TensorView& view() const { return view_; }

  double get(std::int64_t i) const {
    return f32_.empty() ? std::bit_cast<float>(std::uint32_t{bf16_[i]} << 16) : f32_[i];
  }
  void set(std::int64_t i, double x) {
    const auto rounded = static_cast<float>(x);
    if (!f32_.empty()) {
      f32_[i] = rounded;
    } else {  // round to nearest even; finite numbers only
      const auto bits = std::bit_cast<std::uint32_t>(rounded);
      bf16_[i] = static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
  }

 private:
  flash_mla::TensorView view_;
  std::vector<float> f32_;
  std::vector<std::uint16_t> bf16_;
};

}  // namespace example
