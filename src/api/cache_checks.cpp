#include "api/cache_checks.h"

#include "api/limits.h"
#include "api/message.h"

namespace flash_mla {

Status check_columns_in_full(Tensor joint, Tensor rope, const char* rope_shape_text) noexcept {
  const int last = joint.view.rank - 1;
  const std::int64_t columns = joint.view.shape[last];
  if (columns != kHeadDim && columns != kLatentDim) {
    return invalid(joint.name, ".shape[", last, "] is ", columns, "; expected ", kHeadDim, ", or ", kLatentDim,
                   " with ", rope.name, " given");
  }
  if (columns == kHeadDim) {
    if (!rope.view.given()) return {};
    return invalid(rope.name, " is given, but ", joint.name, ".shape[", last, "] is ", kHeadDim, "; expected ",
                   kLatentDim, " for the two together");
  }
  if (!rope.view.given()) {
    return invalid(rope.name, " is not given (rank 0), but ", joint.name, ".shape[", last, "] is ", kLatentDim,
                   "; expected ", rope_shape_text);
  }
  FLASH_MLA_RETURN_IF_ERROR(check_form(rope, joint.view.rank, rope_shape_text, joint.view.dtype, joint.view.device));
  for (int axis = 0; axis < last; ++axis) {
    if (rope.view.shape[axis] != joint.view.shape[axis]) {
      return invalid(rope.name, ".shape[", axis, "] is ", rope.view.shape[axis], "; expected ", joint.view.shape[axis],
                     ", as ", joint.name, ".shape[", axis, "]");
    }
  }
  return check_dim(rope, last, kRopeDim, "the width of the rope part");
}

Status check_page_dims(const Tensor& cache) noexcept {
  if (cache.view.shape[0] > kInt32Max) {
    return invalid(cache.name, ".shape[0] is ", cache.view.shape[0], "; expected at most ", kInt32Max, " pages");
  }
  if (!is_page_size(cache.view.shape[1])) {
    return invalid(cache.name, ".shape[1] is ", cache.view.shape[1],
                   "; expected a page size of 16, 32, 64 or a multiple of 64 tokens");
  }
  if (cache.view.shape[2] < 1 || cache.view.shape[2] > kInt32Max) {
    return invalid(cache.name, ".shape[2] is ", cache.view.shape[2], "; expected at least one kv head");
  }
  return {};
}

PagesView pages_of(const TensorView& view, std::int64_t first_column) noexcept {
  return {column_address(view, first_column), stride_of(view, 0), stride_of(view, 1), stride_of(view, 2)};
}

Status check_cache(const Tensor& kv_cache, const Tensor& k_rope_cache, const CacheExpectation& expect,
                   CacheView* cache) noexcept {
  const TensorView& kv = kv_cache.view;
  FLASH_MLA_RETURN_IF_ERROR(
      check_form(kv_cache, 4, "[num_pages, page_size, h_kv, 576 or 512]", expect.dtype, expect.device));
  if (expect.page_size > 0) {
    FLASH_MLA_RETURN_IF_ERROR(check_dim(kv_cache, 1, expect.page_size, "the plan's page_size"));
  }
  if (expect.num_heads_kv > 0) {
    FLASH_MLA_RETURN_IF_ERROR(check_dim(kv_cache, 2, expect.num_heads_kv, "the plan's num_heads_kv"));
  }
  FLASH_MLA_RETURN_IF_ERROR(check_page_dims(kv_cache));
  FLASH_MLA_RETURN_IF_ERROR(check_columns(kv_cache, k_rope_cache, "[num_pages, page_size, h_kv, 64]"));

  const MemoryRule rule{.written = expect.written, .tma_aligned = needs_tma(expect.device)};
  FLASH_MLA_RETURN_IF_ERROR(check_memory<4>(kv_cache, rule));
  if (k_rope_cache.view.given()) FLASH_MLA_RETURN_IF_ERROR(check_memory<4>(k_rope_cache, rule));

  cache->joint = !k_rope_cache.view.given();
  cache->latent = pages_of(kv, 0);
  cache->rope = cache->joint ? pages_of(kv, kLatentDim) : pages_of(k_rope_cache.view, 0);
  cache->num_pages = kv.shape[0];
  cache->page_size = static_cast<std::int32_t>(kv.shape[1]);
  return {};
}

}  // namespace flash_mla
