// Memory on the GPU for tests, and the check of every call.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace flash_mla::test {

// Throws: a test cannot go on after a failed call.
inline void require(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}
#define FLASH_MLA_REQUIRE(call) ::flash_mla::test::require(call, #call)

class DeviceMemory {
 public:
  explicit DeviceMemory(std::int64_t bytes) : bytes_(bytes) {
    FLASH_MLA_REQUIRE(cudaMalloc(&data_, bytes > 0 ? static_cast<std::size_t>(bytes) : 1));
  }
  DeviceMemory(DeviceMemory&& other) noexcept : data_(other.data_), bytes_(other.bytes_) { other.data_ = nullptr; }
  DeviceMemory& operator=(DeviceMemory&&) = delete;
  ~DeviceMemory() { cudaFree(data_); }

  [[nodiscard]] void* data() const { return data_; }
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }
  void upload(const void* from) { copy(data_, from); }
  void download(void* to) const { copy(to, data_); }
  void fill(int byte) {
    FLASH_MLA_REQUIRE(cudaMemset(data_, byte, static_cast<std::size_t>(bytes_)));
    FLASH_MLA_REQUIRE(cudaStreamSynchronize(nullptr));
  }

 private:
  // Other streams do not wait for the default one, which may still be busy when these calls return.
  void copy(void* to, const void* from) const {
    FLASH_MLA_REQUIRE(cudaMemcpy(to, from, static_cast<std::size_t>(bytes_), cudaMemcpyDefault));
    FLASH_MLA_REQUIRE(cudaStreamSynchronize(nullptr));
  }
  void* data_ = nullptr;
  std::int64_t bytes_;
};

template <class T>
DeviceMemory uploaded(const std::vector<T>& values) {
  DeviceMemory memory(static_cast<std::int64_t>(values.size() * sizeof(T)));
  memory.upload(values.data());
  return memory;
}
template <class T>
std::vector<T> downloaded(const DeviceMemory& memory) {
  std::vector<T> values(static_cast<std::size_t>(memory.bytes()) / sizeof(T));
  memory.download(values.data());
  return values;
}

}  // namespace flash_mla::test
