// Rules that any tensor argument can break, each written once. A check returns the first broken rule as a Status that
// names the argument, its value and the rule. Used by every validate_*.cpp, in this order:
//
//   check_form      rank, dtype, device, no negative dimension: afterwards shape[0 .. rank - 1] may be read
//   check_dim       one dimension against what the other arguments say
//   check_memory    strides, alignment, null: afterwards every element may be accessed
//
// Nearly all arguments are right, and ordinary. What is inline here sees that at a glance; any other goes to the check
// in full, which decides.
#pragma once

#include <cstdint>

#include "api/message.h"
#include "flash_mla/status.h"
#include "flash_mla/types.h"

namespace flash_mla {

// The bytes that a view reaches, from its first element to behind its last; begin == end: no elements.
struct Span {
  std::uintptr_t begin, end;
};

struct Tensor {
  const char* name;
  const TensorView& view;
  Span* span = nullptr;  // where check_memory leaves what the view reaches, for those who ask
};

// What a view's memory must be like, beyond pointers aligned to the element.
struct MemoryRule {
  bool written = false;  // distinct elements must not share memory
  bool last_contiguous = true;
  bool tma_aligned = false;  // base and strides are multiples of 16 bytes (CUDA tensors only)
};

Status check_form_in_full(Tensor tensor, int rank, const char* shape_text, DType dtype, Device device) noexcept;
Status wrong_dim(Tensor tensor, int axis, std::int64_t expected, const char* reason) noexcept;
Status check_memory_in_full(Tensor tensor, const MemoryRule& rule) noexcept;
Status check_lent_memory_in_full(const char* name, const MemoryView& memory, std::int64_t bytes, std::int64_t alignment,
                                 Device device) noexcept;

Span span_of(const TensorView& view) noexcept;  // of what check_memory accepts
inline Span span_of(const MemoryView& memory) noexcept {
  const auto begin = reinterpret_cast<std::uintptr_t>(memory.data);
  return {begin, begin + static_cast<std::uintptr_t>(memory.bytes)};
}

// `shape_text` shows the expected shape: "[b, max_pages]".
inline Status check_form(const Tensor& tensor, int rank, const char* shape_text, DType dtype, Device device) noexcept {
  const TensorView& view = tensor.view;
  std::int64_t signs = 0;
  for (int axis = 0; axis < rank; ++axis) signs |= view.shape[axis];
  const bool right = view.rank == rank && view.dtype == dtype && view.device == device && signs >= 0;
  return right ? Status() : check_form_in_full(tensor, rank, shape_text, dtype, device);
}
Status check_float_dtype(const Tensor& tensor) noexcept;

// shape[axis] == expected; `reason` says where that comes from: "as cache_seqlens.shape[0]".
inline Status check_dim(const Tensor& tensor, int axis, std::int64_t expected, const char* reason) noexcept {
  return tensor.view.shape[axis] == expected ? Status() : wrong_dim(tensor, axis, expected, reason);
}

// If so, check_memory_in_full has nothing to say: there are elements, no size and no stride is so large that anything
// could overflow, and an output's strides fall from dimension to dimension. Dimensions of one element are taken like
// the others.
template <int kRank>
inline bool is_ordinary(const TensorView& view, const MemoryRule& rule, Span* span) noexcept {
  static_assert(kRank <= TensorView::kMaxRank);
  constexpr int kModerateBits = 28, kAddressBits = 62;  // kMaxRank products of two, of 8 bytes: below 2^62
  constexpr std::uint64_t kTmaAlignmentBytes = 16;
  const auto element_bytes = static_cast<std::uint64_t>(size_in_bytes(view.dtype));
  const auto base = reinterpret_cast<std::uintptr_t>(view.data);
  std::uint64_t last = 0;                        // offset of the last element
  std::uint64_t all_bits = 0, aligned_bits = 0;  // of what is to be moderate, and aligned
  bool apart = true;
  for (int axis = kRank - 1; axis >= 0; --axis) {
    const std::uint64_t steps = static_cast<std::uint64_t>(view.shape[axis]) - 1;  // huge without elements
    const auto stride = static_cast<std::uint64_t>(view.strides[axis]);            // huge when negative
    if (rule.written) apart &= stride > last;
    last += steps * stride;
    all_bits |= steps | stride;
    if (axis < kRank - 1 || !rule.last_contiguous) aligned_bits |= stride;
  }
  *span = {base, base + (last + 1) * element_bytes};
  const bool moderate = all_bits >> kModerateBits == 0 && base != 0 && base >> kAddressBits == 0;
  const bool contiguous = !rule.last_contiguous || view.strides[kRank - 1] == 1;
  const bool aligned = rule.tma_aligned ? ((base | aligned_bits * element_bytes) & (kTmaAlignmentBytes - 1)) == 0
                                        : (base & (element_bytes - 1)) == 0;
  return moderate && contiguous && aligned && apart;
}

// After check_form.
template <int kRank>
inline Status check_memory(const Tensor& tensor, const MemoryRule& rule) noexcept {
  Span span;
  if (!is_ordinary<kRank>(tensor.view, rule, &span)) [[unlikely]] {
    FLASH_MLA_RETURN_IF_ERROR(check_memory_in_full(tensor, rule));
    span = span_of(tensor.view);
  }
  if (tensor.span) *tensor.span = span;
  return {};
}

inline Status check_lent_memory(const char* name, const MemoryView& memory, std::int64_t bytes, std::int64_t alignment,
                                Device device) noexcept {
  const auto unaligned = reinterpret_cast<std::uintptr_t>(memory.data) & static_cast<std::uintptr_t>(alignment - 1);
  const bool right = memory.device == device && memory.bytes >= bytes && memory.data && unaligned == 0;
  return right ? Status() : check_lent_memory_in_full(name, memory, bytes, alignment, device);
}

// A span, and whose it is.
struct Reach {
  const char* name = nullptr;
  Span span = {};
  const TensorView* view = nullptr;  // null: every byte between belongs to it
};
// After check_memory.
Reach reach_of(const Tensor& tensor) noexcept;
Reach reach_of(const char* name, const MemoryView& memory) noexcept;

// An error if `output` certainly shares memory with `other`: both begin at the same byte, or both are gapless and meet.
// Interleaved strided views of one allocation are legal.
Status check_apart(const Reach& output, const Reach& other) noexcept;
constexpr bool meet(const Span& a, const Span& b) noexcept { return a.begin < b.end && b.begin < a.end; }

}  // namespace flash_mla
