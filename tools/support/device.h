// The device that the chosen backend computes on: memory, and work that is recorded once and run often. The CPU's
// memory is ordinary memory; the CUDA one is built when the library is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "flash_mla/types.h"

namespace flash_mla::tools {

// Work that was put together once and runs as often as one likes: on CUDA one graph, on the CPU the calls themselves.
// It reads what lies in its memory when it runs.
class Recording {
 public:
  virtual ~Recording() = default;
  // Waits for the end; throws RunError if the work failed.
  virtual void run() = 0;
  // Between two of the work's marks in the last run; they are counted from 0.
  [[nodiscard]] virtual double seconds_between(std::size_t first_mark, std::size_t last_mark) const = 0;
};

// Calls the library; notes the time by calling `mark`.
using RecordedWork = std::function<void(const std::function<void()>& mark)>;

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
  // Within the device, in stream order.
  virtual void copy(void* to, const void* from, std::int64_t bytes) = 0;
  // What `work` enqueues on stream(). Pointers that it passes on must stay valid.
  [[nodiscard]] virtual std::unique_ptr<Recording> record(RecordedWork work) = 0;
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
  [[nodiscard]] void* at(std::int64_t byte) const noexcept { return static_cast<std::byte*>(data_) + byte; }
  [[nodiscard]] std::int64_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] MemoryView memory() const noexcept { return {data_, bytes_, device_->device()}; }

 private:
  DeviceContext* device_;
  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

}  // namespace flash_mla::tools
