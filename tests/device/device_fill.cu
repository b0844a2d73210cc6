// See device_fill.h.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "device/device_fill.h"
#include "device/gpu.h"
#include "device/row_walk.cuh"

namespace flash_mla::test {
namespace {

__device__ float normal(std::uint64_t seed, std::int64_t index) {
  const std::uint64_t bits = mixed(mixed(seed) ^ static_cast<std::uint64_t>(index));
  const float u = (static_cast<float>(bits >> 40) + 0.5f) * 0x1p-24f;
  const float v = (static_cast<float>(bits & 0xffffff) + 0.5f) * 0x1p-24f;
  return sqrtf(-2.f * logf(u)) * cospif(2.f * v);
}

__device__ void store(const TensorView& view, std::int64_t offset, float value) {
  if (view.dtype == DType::bf16) {
    static_cast<__nv_bfloat16*>(view.data)[offset] = __float2bfloat16_rn(value);
  } else {
    static_cast<__half*>(view.data)[offset] = __float2half_rn(value);
  }
}

__global__ void poison_kernel(std::uint16_t* data, std::int64_t count, uint4 kinds, std::uint64_t seed) {
  for (std::int64_t i = walk_start(); i < count; i += walk_stride()) {
    const std::uint64_t pick = mixed(seed ^ static_cast<std::uint64_t>(i)) & 3;
    data[i] = static_cast<std::uint16_t>(pick == 0 ? kinds.x : pick == 1 ? kinds.y : pick == 2 ? kinds.z : kinds.w);
  }
}

__global__ void rows_kernel(const TensorView view, float deviation, std::uint64_t seed) {
  const std::int64_t elements = elements_of(view);
  for (std::int64_t i = walk_start(); i < elements; i += walk_stride()) {
    store(view, offset_of(view, i), deviation * normal(seed, i));
  }
}

// blockIdx.x: a share of the request's tokens; blockIdx.y: request, in strides.
__global__ void tokens_kernel(const TensorView cache, const TensorView table, const TensorView lengths,
                              std::uint64_t seed) {
  const std::int64_t page_size = cache.shape[1], heads = cache.shape[2], columns = cache.shape[3];
  for (std::int64_t request = blockIdx.y; request < lengths.shape[0]; request += gridDim.y) {
    const std::int64_t length = static_cast<const std::int32_t*>(lengths.data)[request * lengths.strides[0]];
    for (std::int64_t i = walk_start(); i < length * heads * columns; i += walk_stride()) {
      const std::int64_t t = i / (heads * columns), head = i / columns % heads, column = i % columns;
      const std::int64_t page =
          static_cast<const std::int32_t*>(table.data)[request * table.strides[0] + t / page_size * table.strides[1]];
      const std::int64_t offset =
          page * cache.strides[0] + t % page_size * cache.strides[1] + head * cache.strides[2] + column;
      store(cache, offset, normal(mixed(seed) + static_cast<std::uint64_t>(request), i));
    }
  }
}

__global__ void bytes_kernel(const TensorView view, int byte) {
  const std::int64_t elements = elements_of(view);
  const int element_bytes = size_in_bytes(view.dtype);
  for (std::int64_t i = walk_start(); i < elements; i += walk_stride()) {
    auto* at = static_cast<unsigned char*>(view.data) + offset_of(view, i) * element_bytes;
    for (int k = 0; k < element_bytes; ++k) at[k] = static_cast<unsigned char>(byte);
  }
}

}  // namespace

void fill_poison(void* data, std::int64_t bytes, DType dtype, reference::Poison poison, std::uint64_t seed,
                 cudaStream_t stream) {
  const unsigned inf = dtype == DType::bf16 ? 0x7f80 : 0x7c00, nan = inf + 0x40, sign = 0x8000;
  uint4 kinds = {0, sign, 0, sign};
  if (poison == reference::Poison::nan) kinds = {nan, nan | sign, nan, nan | sign};
  if (poison == reference::Poison::inf) kinds = {inf, inf | sign, inf, inf | sign};
  if (poison == reference::Poison::mixed) kinds = {nan, nan | sign, inf, inf | sign};
  poison_kernel<<<kWalkThreadBlocks, kWalkThreads, 0, stream>>>(static_cast<std::uint16_t*>(data), bytes / 2, kinds,
                                                                seed);
  FLASH_MLA_REQUIRE(cudaGetLastError());
}

void fill_rows(const TensorView& view, float deviation, std::uint64_t seed, cudaStream_t stream) {
  rows_kernel<<<kWalkThreadBlocks, kWalkThreads, 0, stream>>>(view, deviation, seed);
  FLASH_MLA_REQUIRE(cudaGetLastError());
}

void fill_tokens(const TensorView& cache, const TensorView& block_table, const TensorView& lengths, std::uint64_t seed,
                 cudaStream_t stream) {
  if (lengths.shape[0] == 0) return;
  const auto requests = static_cast<unsigned>(lengths.shape[0] < 65535 ? lengths.shape[0] : 65535);
  const unsigned shares = (kWalkThreadBlocks + requests - 1) / requests;
  tokens_kernel<<<dim3(shares, requests), kWalkThreads, 0, stream>>>(cache, block_table, lengths, seed);
  FLASH_MLA_REQUIRE(cudaGetLastError());
}

void fill_rows_with_byte(const TensorView& view, int byte, cudaStream_t stream) {
  bytes_kernel<<<kWalkThreadBlocks, kWalkThreads, 0, stream>>>(view, byte);
  FLASH_MLA_REQUIRE(cudaGetLastError());
}

}  // namespace flash_mla::test
