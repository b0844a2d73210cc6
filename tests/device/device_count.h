// Findings about memory on the GPU that need no copy to the host.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "device/gpu.h"
#include "flash_mla/types.h"

namespace flash_mla::test {

struct Difference {
  const std::uint32_t* where;
  std::uint32_t found, expected;
};

// A number on the GPU that kernels add to; behind it the first few words that count_differing() counted.
class DeviceCount {
 public:
  static constexpr int kDifferences = 4;
  DeviceCount() : memory_(8 + kDifferences * sizeof(Difference)) { memory_.fill(0); }
  [[nodiscard]] unsigned long long* data() const { return static_cast<unsigned long long*>(memory_.data()); }
  // These wait for the stream.
  [[nodiscard]] std::int64_t fetch(cudaStream_t stream) const;
  [[nodiscard]] std::vector<Difference> first_differences(cudaStream_t stream) const;

 private:
  DeviceMemory memory_;
};

// All enqueue, and add to `count`.

// 32-bit words of a that differ from b's, which are right; bytes is a multiple of 4.
void count_differing(const void* a, const void* b, std::int64_t bytes, const DeviceCount& count, cudaStream_t stream);
// Elements of a float tensor that are NaN.
void count_nans(const TensorView& view, const DeviceCount& count, cudaStream_t stream);
// Bytes that are not `byte`.
void count_other_bytes(const void* data, std::int64_t bytes, int byte, const DeviceCount& count, cudaStream_t stream);
// Adds a hash of the 16-bit words and their places.
void add_hash(const void* data, std::int64_t bytes, const DeviceCount& sum, cudaStream_t stream);

}  // namespace flash_mla::test
