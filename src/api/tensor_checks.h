// Rules that any tensor argument can break, each written once. A check returns the first broken rule as a Status that
// names the argument, its value and the rule. Used by every validate_*.cpp, in this order:
//
//   check_form      rank, dtype, device, no negative dimension: afterwards shape[0 .. rank - 1] may be read
//   check_dim       one dimension against what the other arguments say
//   check_memory    strides, alignment, null: afterwards every element may be accessed
#pragma once

#include <cstdint>

#include "api/message.h"
#include "flash_mla/status.h"
#include "flash_mla/types.h"

namespace flash_mla {

struct Tensor {
  const char* name;
  const TensorView& view;
};

// What a view's memory must be like, beyond pointers aligned to the element.
struct MemoryRule {
  bool written = false;  // distinct elements must not share memory
  bool last_contiguous = true;
  bool tma_aligned = false;  // base and strides are multiples of 16 bytes (CUDA tensors only)
};

// `shape_text` shows the expected shape: "[b, max_pages]".
Status check_form(const Tensor& tensor, int rank, const char* shape_text, DType dtype, Device device) noexcept;
Status check_float_dtype(const Tensor& tensor) noexcept;

// shape[axis] == expected; `reason` says where that comes from: "as cache_seqlens.shape[0]".
Status check_dim(const Tensor& tensor, int axis, std::int64_t expected, const char* reason) noexcept;

Status check_memory(const Tensor& tensor, const MemoryRule& rule) noexcept;

Status check_lent_memory(const char* name, const MemoryView& memory, std::int64_t bytes, std::int64_t alignment,
                         Device device) noexcept;

// The bytes that a view reaches, from its first element to behind its last.
struct Reach {
  const char* name = nullptr;
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;            // == begin: no elements
  const TensorView* view = nullptr;  // null: every byte between belongs to it
};
// After check_memory.
Reach reach_of(const Tensor& tensor) noexcept;
Reach reach_of(const char* name, const MemoryView& memory) noexcept;

// An error if `output` certainly shares memory with `other`: both begin at the same byte, or both are gapless and meet.
// Interleaved strided views of one allocation are legal.
Status check_meeting(const Reach& output, const Reach& other) noexcept;  // the rest, for reaches that meet
inline Status check_apart(const Reach& output, const Reach& other) noexcept {
  const bool meet = output.begin < other.end && other.begin < output.end;
  return meet ? check_meeting(output, other) : Status();
}

}  // namespace flash_mla
