// Scratch for decode, from the host or from the framework whose tensors are decoded.
#pragma once

#include <tvm/ffi/container/tensor.h>

#include <cstdint>

#include "flash_mla/flash_mla.h"

namespace flash_mla::python {

// Of CPU calls: one for each thread that calls, as large as its largest call; freed with the thread.
MemoryView scratch_of_this_thread(std::int64_t bytes);

// A framework's memory, and how it is given back.
class Lent {
 public:
  Lent() = default;
  // Raises MemoryError. On the device's current stream.
  Lent(const DLPackExchangeAPI& framework, std::int64_t bytes, Device device);
  Lent(Lent&& other) noexcept;
  Lent& operator=(Lent&& other) noexcept;
  ~Lent();
  [[nodiscard]] MemoryView view() const noexcept { return view_; }

 private:
  DLManagedTensorVersioned* tensor_ = nullptr;
  MemoryView view_;
};

// Of CUDA calls: kept for each thread and stream, whose calls follow each other. Two threads may enqueue the kernels of
// their calls interleaved on one stream, so each has its own.
MemoryView kept_scratch(const DLPackExchangeAPI& framework, std::int64_t bytes, Device device, Stream stream);

}  // namespace flash_mla::python
