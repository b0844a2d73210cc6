#include "api/tensor_checks.h"

namespace flash_mla {
namespace {

constexpr std::int64_t kTmaAlignment_bytes = 16;

// `alignment` is a power of two; a division takes longer than all else that is checked of a tensor.
bool is_aligned(const void* data, std::int64_t alignment) {
  return (reinterpret_cast<std::uintptr_t>(data) & static_cast<std::uintptr_t>(alignment - 1)) == 0;
}

bool has_elements(const TensorView& view) {
  for (int axis = 0; axis < view.rank; ++axis) {
    if (view.shape[axis] == 0) return false;
  }
  return true;
}

// Row-major without gaps; strides of dimensions of one element do not matter.
bool is_gapless(const TensorView& view) {
  std::int64_t expected = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    if (view.shape[axis] == 1) continue;
    if (view.strides[axis] != expected) return false;
    expected *= view.shape[axis];
  }
  return true;
}

// Offset of the last element, in elements. False: it overflows.
bool last_offset(const TensorView& view, std::int64_t* offset) {
  *offset = 0;
  for (int axis = 0; axis < view.rank; ++axis) {
    std::int64_t step = 0;
    if (__builtin_mul_overflow(view.shape[axis] - 1, view.strides[axis], &step)) return false;
    if (__builtin_add_overflow(*offset, step, offset)) return false;
  }
  return true;
}

Status check_strides(const Tensor& tensor, const MemoryRule& rule) {
  const TensorView& view = tensor.view;
  const int last = view.rank - 1;
  for (int axis = 0; axis < view.rank; ++axis) {
    if (view.shape[axis] <= 1) continue;
    const std::int64_t stride = view.strides[axis];
    if (stride < 0) return invalid(tensor.name, ".strides[", axis, "] is ", stride, "; strides must be >= 0");
    if (axis == last && rule.last_contiguous) {
      if (stride != 1) {
        return invalid(tensor.name, ".strides[", axis, "] is ", stride,
                       "; expected 1: the last dimension must be contiguous");
      }
    } else if (rule.tma_aligned && (stride % kTmaAlignment_bytes * size_in_bytes(view.dtype)) % kTmaAlignment_bytes) {
      return invalid(tensor.name, ".strides[", axis, "] is ", stride, " elements of ", view.dtype,
                     "; on CUDA devices it must be a multiple of 16 bytes");
    }
  }
  return {};
}

// Sufficient for distinct elements to lie apart, and what every ordinary view fulfils: taken by rising stride, each
// dimension steps over all that the smaller ones reach. After check_extent, so nothing overflows.
Status check_no_self_overlap(const Tensor& tensor) {
  const TensorView& view = tensor.view;
  int order[TensorView::kMaxRank] = {};
  int dims = 0;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    if (view.shape[axis] == 1) continue;
    int place = dims++;
    for (; place > 0 && view.strides[order[place - 1]] > view.strides[axis]; --place) order[place] = order[place - 1];
    order[place] = axis;
  }
  std::int64_t reached = 0;  // offset of the last element of the dimensions so far
  for (int i = 0; i < dims; ++i) {
    const int axis = order[i];
    const std::int64_t stride = view.strides[axis];
    if (stride <= reached) {
      return invalid(tensor.name, ".strides[", axis, "] is ", stride, "; expected at least ", reached + 1,
                     ": elements of an output must not overlap");
    }
    reached += (view.shape[axis] - 1) * stride;
  }
  return {};
}

Status check_extent(const Tensor& tensor) {
  const TensorView& view = tensor.view;
  std::int64_t offset = 0;
  std::int64_t bytes = 0;
  const auto base = reinterpret_cast<std::uintptr_t>(view.data);
  std::uintptr_t end = 0;
  if (!last_offset(view, &offset) || __builtin_add_overflow(offset, 1, &offset) ||
      __builtin_mul_overflow(offset, size_in_bytes(view.dtype), &bytes) ||
      __builtin_add_overflow(base, static_cast<std::uintptr_t>(bytes), &end)) {
    int largest = 0;
    for (int axis = 1; axis < view.rank; ++axis) {
      if (view.shape[axis] > 1 && view.strides[axis] > view.strides[largest]) largest = axis;
    }
    return invalid(tensor.name, ".strides[", largest, "] is ", view.strides[largest], " with shape[", largest,
                   "] = ", view.shape[largest], "; the tensor would reach past the end of the address space");
  }
  return {};
}

}  // namespace

Status check_form_in_full(Tensor tensor, int rank, const char* shape_text, DType dtype, Device device) noexcept {
  const TensorView& view = tensor.view;
  if (!view.given()) return invalid(tensor.name, " is not given (rank 0); expected ", shape_text);
  if (view.rank != rank) {
    return invalid(tensor.name, ".rank is ", view.rank, "; expected ", rank, ": ", shape_text);
  }
  if (view.dtype != dtype) return invalid(tensor.name, ".dtype is ", view.dtype, "; expected ", dtype);
  if (view.device != device) return invalid(tensor.name, ".device is ", view.device, "; expected ", device);
  for (int axis = 0; axis < rank; ++axis) {
    if (view.shape[axis] < 0) {
      return invalid(tensor.name, ".shape[", axis, "] is ", view.shape[axis], "; dimensions must be >= 0");
    }
  }
  return {};
}

Status wrong_dim(Tensor tensor, int axis, std::int64_t expected, const char* reason) noexcept {
  return invalid(tensor.name, ".shape[", axis, "] is ", tensor.view.shape[axis], "; expected ", expected, ", ", reason);
}

Status check_memory_in_full(Tensor tensor, const MemoryRule& rule) noexcept {
  const TensorView& view = tensor.view;
  if (!has_elements(view)) return {};
  if (!view.data) return invalid(tensor.name, ".data is null, but the tensor has elements");
  const std::int64_t alignment = rule.tma_aligned ? kTmaAlignment_bytes : size_in_bytes(view.dtype);
  if (!is_aligned(view.data, alignment)) {
    return invalid(tensor.name, ".data is ", static_cast<const void*>(view.data), "; expected a multiple of ",
                   alignment, " bytes");
  }
  FLASH_MLA_RETURN_IF_ERROR(check_strides(tensor, rule));
  FLASH_MLA_RETURN_IF_ERROR(check_extent(tensor));
  return rule.written ? check_no_self_overlap(tensor) : Status();
}

Status check_lent_memory_in_full(const char* name, const MemoryView& memory, std::int64_t bytes, std::int64_t alignment,
                                 Device device) noexcept {
  if (memory.device != device) return invalid(name, ".device is ", memory.device, "; expected ", device);
  if (memory.bytes < bytes) return invalid(name, ".bytes is ", memory.bytes, "; the plan needs ", bytes);
  if (!memory.data && bytes > 0) return invalid(name, ".data is null; the plan needs ", bytes, " bytes");
  if (!is_aligned(memory.data, alignment)) {
    return invalid(name, ".data is ", static_cast<const void*>(memory.data), "; expected a multiple of ", alignment,
                   " bytes");
  }
  return {};
}

Status check_float_dtype(const Tensor& tensor) noexcept {
  const DType dtype = tensor.view.dtype;
  if (dtype == DType::bf16 || dtype == DType::f16 || dtype == DType::f32) return {};
  return invalid(tensor.name, ".dtype is ", dtype, "; expected bf16, f16 or f32");
}

Span span_of(const TensorView& view) noexcept {
  if (!has_elements(view)) return {};
  std::int64_t offset = 0;
  last_offset(view, &offset);
  const auto begin = reinterpret_cast<std::uintptr_t>(view.data);
  return {begin, begin + static_cast<std::uintptr_t>((offset + 1) * size_in_bytes(view.dtype))};
}

Reach reach_of(const Tensor& tensor) noexcept {
  const Span span = tensor.view.given() ? span_of(tensor.view) : Span();
  return {tensor.name, span, &tensor.view};
}

Reach reach_of(const char* name, const MemoryView& memory) noexcept { return {name, span_of(memory)}; }

Status check_apart(const Reach& output, const Reach& other) noexcept {
  const bool empty = output.span.begin == output.span.end || other.span.begin == other.span.end;
  if (empty || !meet(output.span, other.span)) return {};
  const auto gapless = [](const Reach& reach) { return !reach.view || is_gapless(*reach.view); };
  const bool certain = output.span.begin == other.span.begin || (gapless(output) && gapless(other));
  if (!certain) return {};
  return invalid(output.name, ".data is ", reinterpret_cast<const void*>(output.span.begin), " and overlaps ",
                 other.name, ", which begins at ", reinterpret_cast<const void*>(other.span.begin));
}

}  // namespace flash_mla
