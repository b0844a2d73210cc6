// How kernels of the tests walk over the rows of a strided view; a row is all of its last dimension, contiguous.
#pragma once

#include <cstdint>

#include "flash_mla/types.h"

namespace flash_mla::test {

constexpr int kWalkThreads = 256;
constexpr int kWalkThreadBlocks = 132 * 16;

inline __device__ std::int64_t walk_start() { return blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; }
inline __device__ std::int64_t walk_stride() { return gridDim.x * static_cast<std::int64_t>(blockDim.x); }

inline __host__ __device__ std::int64_t elements_of(const TensorView& view) {
  std::int64_t elements = 1;
  for (int axis = 0; axis < view.rank; ++axis) elements *= view.shape[axis];
  return elements;
}

// The offset of element `index` in row-major order.
inline __device__ std::int64_t offset_of(const TensorView& view, std::int64_t index) {
  std::int64_t offset = 0;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    offset += index % view.shape[axis] * view.strides[axis];
    index /= view.shape[axis];
  }
  return offset;
}

inline __device__ std::uint64_t mixed(std::uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace flash_mla::test
