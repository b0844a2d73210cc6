// Memory on the device that the chosen backend computes on: allocate, fill, fetch, wait. The CPU's is ordinary memory;
// the CUDA one is built when the library is.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "flash_mla/types.h"

namespace flash_mla::tools {

class DeviceContext {
 public:
  virtual ~DeviceContext() = default;

  [[nodiscard]] virtual Device device() const noexcept = 0;
  [[nodiscard]] virtual Stream stream() const noexcept = 0;
  // Aligned to 256 bytes at least; throws RunError when there is no memory left.
  [[nodiscard]] virtual void* allocate(std::int64_t bytes) = 0;
  virtual void release(void* data) noexcept = 0;
  // Both are complete when they return.
  virtual void upload(void* to, const void* from, std::int64_t bytes) = 0;
  virtual void download(void* to, const void* from, std::int64_t bytes) = 0;
  // Waits for the stream and throws RunError if the work on it failed.
  virtual void synchronize() = 0;
};

// `name` is "cpu", "cuda", or empty for CUDA when this machine can and the CPU otherwise. Throws InputError with the
// backend's own reason when it cannot run here.
std::unique_ptr<DeviceContext> open_device(const std::string& name);

// What --backend resolves to, and why, in a sentence.
struct BackendChoice {
  std::string name;
  std::string why;
};
BackendChoice choose_backend(const std::string& name);

// Owns a piece of device memory. Grows on demand and then forgets its content.
class Buffer {
 public:
  explicit Buffer(DeviceContext& device, std::int64_t bytes = 0) : device_(&device) { reserve(bytes); }
  Buffer(Buffer&& other) noexcept : device_(other.device_), data_(other.data_), bytes_(other.bytes_) {
    other.data_ = nullptr, other.bytes_ = 0;
  }
  Buffer& operator=(Buffer&&) = delete;
  ~Buffer() { device_->release(data_); }

  void reserve(std::int64_t bytes) {
    if (bytes <= bytes_) return;
    device_->release(data_);
    data_ = nullptr, bytes_ = 0;
    data_ = device_->allocate(bytes);
    bytes_ = bytes;
  }
  void assign(const void* from, std::int64_t bytes) {
    reserve(bytes);
    if (bytes > 0) device_->upload(data_, from, bytes);
  }

  [[nodiscard]] void* data() const noexcept { return data_; }
  [[nodiscard]] std::int64_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] MemoryView memory() const noexcept { return {data_, bytes_, device_->device()}; }

 private:
  DeviceContext* device_;
  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

}  // namespace flash_mla::tools
