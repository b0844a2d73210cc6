// Rules about rows of 512 + 64 columns that come as one tensor or two (queries, tokens, cache), shared by decode,
// append_kv and copy_pages.
#pragma once

#include <cstdint>

#include "api/tensor_checks.h"
#include "core/problem.h"
#include "flash_mla/plan.h"
#include "flash_mla/status.h"
#include "flash_mla/types.h"

namespace flash_mla {

// 0 for a dimension of at most one element, whose stride means nothing.
constexpr std::int64_t stride_of(const TensorView& view, int axis) noexcept {
  return view.shape[axis] > 1 ? view.strides[axis] : 0;
}

inline void* column_address(const TensorView& view, std::int64_t column) noexcept {
  return view.data ? static_cast<char*>(view.data) + column * size_in_bytes(view.dtype) : nullptr;
}

Status check_columns_in_full(Tensor joint, Tensor rope, const char* rope_shape_text) noexcept;

// The last dimension of `joint` is 576 with `rope` not given, or 512 with it given, of the same shape but 64 columns.
// Forms only; after check_form(joint).
inline Status check_columns(const Tensor& joint, const Tensor& rope, const char* rope_shape_text) noexcept {
  const bool right = joint.view.shape[joint.view.rank - 1] == kHeadDim && !rope.view.given();
  return right ? Status() : check_columns_in_full(joint, rope, rope_shape_text);
}

// kv_cache and k_rope_cache as a whole, dtype and device as given. `expect` holds the plan's values.
struct CacheExpectation {
  DType dtype = DType::bf16;
  Device device = {};
  std::int64_t page_size = 0;     // 0: any legal one
  std::int64_t num_heads_kv = 0;  // 0: any
  bool written = false;
};
Status check_cache(const Tensor& kv_cache, const Tensor& k_rope_cache, const CacheExpectation& expect,
                   CacheView* cache) noexcept;

// num_pages, page_size and heads of a cache [num_pages, page_size, h_kv, d]; after check_form.
Status check_page_dims(const Tensor& cache) noexcept;

PagesView pages_of(const TensorView& view, std::int64_t first_column) noexcept;

constexpr bool needs_tma(Device device) noexcept { return device.type == DeviceType::cuda; }

}  // namespace flash_mla
