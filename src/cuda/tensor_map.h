// Tensor maps: what the copy engine knows of a tensor in global memory.
#pragma once

#include <cuda.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "flash_mla/status.h"
#include "flash_mla/types.h"

namespace flash_mla::cuda {

// Innermost dimension first; it is contiguous. Boxes land in shared memory with the 128-byte swizzle of tile/swizzle.h,
// so a box is 64 columns of 16-bit elements wide.
struct TensorMapSpec {
  static constexpr int kMaxRank = 5;

  const char* name = "";  // for messages
  DType dtype = DType::bf16;
  const void* base = nullptr;
  int rank = 0;
  std::array<std::int64_t, kMaxRank> sizes = {};            // elements, >= 1
  std::array<std::int64_t, kMaxRank> stride_elements = {};  // [0] is 1; ignored where the size is 1
  std::array<std::int32_t, kMaxRank> box = {};              // elements

  // Whether the maps differ in the base at most.
  [[nodiscard]] bool has_form_of(const TensorMapSpec& other) const noexcept {
    if (rank != other.rank || dtype != other.dtype) return false;
    for (std::size_t axis = 0; axis < kMaxRank; ++axis) {  // comparing whole arrays would be three calls of memcmp
      if (sizes[axis] != other.sizes[axis] || stride_elements[axis] != other.stride_elements[axis] ||
          box[axis] != other.box[axis]) {
        return false;
      }
    }
    return true;
  }
};

// Thread-safe.
[[nodiscard]] Status encode_tensor_map(const TensorMapSpec& spec, CUtensorMap* map) noexcept;

}  // namespace flash_mla::cuda
