// See device_count.h.
#include <algorithm>

#include "device/device_count.h"
#include "device/row_walk.cuh"

namespace flash_mla::test {
namespace {

__device__ void add(unsigned long long* count, unsigned long long mine) {
  for (int distance = 16; distance > 0; distance /= 2) mine += __shfl_xor_sync(0xffffffffu, mine, distance);
  if (threadIdx.x % 32 == 0 && mine != 0) atomicAdd(count, mine);
}

__global__ void differing_kernel(const std::uint32_t* a, const std::uint32_t* b, std::int64_t words,
                                 unsigned long long* count) {
  for (std::int64_t i = walk_start(); i < words; i += walk_stride()) {
    if (a[i] == b[i]) continue;
    const unsigned long long before = atomicAdd(count, 1ull);
    if (before < DeviceCount::kDifferences) reinterpret_cast<Difference*>(count + 1)[before] = {a + i, a[i], b[i]};
  }
}

__global__ void nans_kernel(const TensorView view, unsigned long long* count) {
  const std::int64_t elements = elements_of(view);
  unsigned long long mine = 0;
  for (std::int64_t i = walk_start(); i < elements; i += walk_stride()) {
    const std::int64_t offset = offset_of(view, i);
    if (view.dtype == DType::f32) {
      mine += isnan(static_cast<const float*>(view.data)[offset]);
    } else {
      const unsigned magnitude = static_cast<const std::uint16_t*>(view.data)[offset] & 0x7fffu;
      mine += magnitude > (view.dtype == DType::bf16 ? 0x7f80u : 0x7c00u);
    }
  }
  add(count, mine);
}

__global__ void other_bytes_kernel(const unsigned char* data, std::int64_t bytes, unsigned char byte,
                                   unsigned long long* count) {
  unsigned long long mine = 0;
  for (std::int64_t i = walk_start(); i < bytes; i += walk_stride()) mine += data[i] != byte;
  add(count, mine);
}

__global__ void hash_kernel(const std::uint16_t* data, std::int64_t count, unsigned long long* sum) {
  unsigned long long mine = 0;
  for (std::int64_t i = walk_start(); i < count; i += walk_stride()) {
    mine += mixed(static_cast<std::uint64_t>(i) << 16 | data[i]);
  }
  add(sum, mine);
}

// Small comparisons stand between two runs of what is tested: no more thread blocks than there is work for.
unsigned thread_blocks_for(std::int64_t items) {
  const std::int64_t blocks = (items + kWalkThreads - 1) / kWalkThreads;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < kWalkThreadBlocks ? blocks : kWalkThreadBlocks);
}

}  // namespace

std::int64_t DeviceCount::fetch(cudaStream_t stream) const {
  unsigned long long value = 0;
  FLASH_MLA_REQUIRE(cudaMemcpyAsync(&value, memory_.data(), sizeof value, cudaMemcpyDefault, stream));
  FLASH_MLA_REQUIRE(cudaStreamSynchronize(stream));
  return static_cast<std::int64_t>(value);
}

std::vector<Difference> DeviceCount::first_differences(cudaStream_t stream) const {
  std::vector<Difference> first(static_cast<std::size_t>(std::min<std::int64_t>(fetch(stream), kDifferences)));
  FLASH_MLA_REQUIRE(cudaMemcpy(first.data(), data() + 1, first.size() * sizeof(Difference), cudaMemcpyDefault));
  return first;
}

void count_differing(const void* a, const void* b, std::int64_t bytes, const DeviceCount& count, cudaStream_t stream) {
  differing_kernel<<<thread_blocks_for(bytes / 4), kWalkThreads, 0, stream>>>(
      static_cast<const std::uint32_t*>(a), static_cast<const std::uint32_t*>(b), bytes / 4, count.data());
  FLASH_MLA_REQUIRE(cudaGetLastError());
}

void count_nans(const TensorView& view, const DeviceCount& count, cudaStream_t stream) {
  nans_kernel<<<kWalkThreadBlocks, kWalkThreads, 0, stream>>>(view, count.data());
  FLASH_MLA_REQUIRE(cudaGetLastError());
}

void count_other_bytes(const void* data, std::int64_t bytes, int byte, const DeviceCount& count, cudaStream_t stream) {
  other_bytes_kernel<<<kWalkThreadBlocks, kWalkThreads, 0, stream>>>(static_cast<const unsigned char*>(data), bytes,
                                                                     static_cast<unsigned char>(byte), count.data());
  FLASH_MLA_REQUIRE(cudaGetLastError());
}

void add_hash(const void* data, std::int64_t bytes, const DeviceCount& sum, cudaStream_t stream) {
  hash_kernel<<<kWalkThreadBlocks, kWalkThreads, 0, stream>>>(static_cast<const std::uint16_t*>(data), bytes / 2,
                                                              sum.data());
  FLASH_MLA_REQUIRE(cudaGetLastError());
}

}  // namespace flash_mla::test
