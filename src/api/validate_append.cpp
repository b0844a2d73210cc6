// append_kv and copy_pages: what writes into a cache.
#include <algorithm>
#include <new>
#include <vector>

#include "api/cache_checks.h"
#include "api/limits.h"
#include "api/message.h"
#include "api/tensor_checks.h"
#include "api/validate.h"

namespace flash_mla {
namespace {

// c_kv [n, h_kv, 512] or k_pe [n, h_kv, 64].
Status check_tokens(const Tensor& tokens, const char* shape_text, std::int64_t columns, std::int64_t n,
                    const TensorView& kv_cache) {
  FLASH_MLA_RETURN_IF_ERROR(check_form(tokens, 3, shape_text, kv_cache.dtype, kv_cache.device));
  FLASH_MLA_RETURN_IF_ERROR(check_dim(tokens, 0, n, "as slot_mapping.shape[0]"));
  FLASH_MLA_RETURN_IF_ERROR(check_dim(tokens, 1, kv_cache.shape[2], "as kv_cache.shape[2]"));
  FLASH_MLA_RETURN_IF_ERROR(check_dim(tokens, 2, columns, "the width of that part"));
  return check_memory<3>(tokens, {.tma_aligned = needs_tma(kv_cache.device)});
}

Status check_slots(const AppendProblem& problem) {
  const std::int64_t slots = problem.cache.num_pages * problem.cache.page_size;
  for (std::int64_t i = 0; i < problem.tokens; ++i) {
    const std::int64_t slot = problem.slots[i * problem.slots_stride];
    if (slot >= slots) {
      return invalid("slot_mapping[", i, "] is ", slot, "; the cache has ", slots, " slots (", problem.cache.num_pages,
                     " pages of ", problem.cache.page_size, ")");
    }
  }
  return {};
}

Status check_page_ids(const CopyPagesProblem& problem) {
  for (std::int64_t i = 0; i < 2 * problem.pairs; ++i) {
    const std::int64_t page = problem.page_pairs[i];
    if (page >= 0 && page < problem.num_pages) continue;
    return invalid("page_pairs[", i / 2, ", ", i % 2, "] is ", page, "; expected 0 to ", problem.num_pages - 1,
                   " (cache.shape[0] - 1)");
  }
  return {};
}

// No destination is a source or another destination.
Status check_destinations(const CopyPagesProblem& problem) try {
  const std::int64_t* pairs = problem.page_pairs;
  std::vector<std::int64_t> destinations(static_cast<std::size_t>(problem.pairs));
  for (std::int64_t i = 0; i < problem.pairs; ++i) destinations[i] = pairs[2 * i + 1];
  std::sort(destinations.begin(), destinations.end());
  const auto twice = std::adjacent_find(destinations.begin(), destinations.end());
  if (twice != destinations.end()) return invalid("page_pairs has ", *twice, " as a destination twice");
  for (std::int64_t i = 0; i < problem.pairs; ++i) {
    if (!std::binary_search(destinations.begin(), destinations.end(), pairs[2 * i])) continue;
    return invalid("page_pairs[", i, ", 0] is ", pairs[2 * i], ", which is also a destination");
  }
  return {};
} catch (const std::bad_alloc&) {
  return failure(StatusCode::out_of_memory, "page_pairs.shape[0] is ", problem.pairs,
                 "; the host has no memory to look for pages that occur twice");
}

}  // namespace

Status validate_append(const AppendArgs& args, AppendProblem* problem) noexcept {
  const Tensor kv_cache{"kv_cache", args.kv_cache};
  const Tensor k_rope_cache{"k_rope_cache", args.k_rope_cache};
  const Tensor slots{"slot_mapping", args.slot_mapping};
  const Tensor c_kv{"c_kv", args.c_kv};
  const Tensor k_pe{"k_pe", args.k_pe};
  const Device device = args.kv_cache.device;
  FLASH_MLA_RETURN_IF_ERROR(check_float_dtype(kv_cache));
  FLASH_MLA_RETURN_IF_ERROR(check_cache(
      kv_cache, k_rope_cache, {.dtype = args.kv_cache.dtype, .device = device, .written = true}, &problem->cache));
  FLASH_MLA_RETURN_IF_ERROR(check_form(slots, 1, "[n]", DType::i64, device));
  FLASH_MLA_RETURN_IF_ERROR(check_memory<1>(slots, {.last_contiguous = false}));
  const std::int64_t n = args.slot_mapping.shape[0];
  FLASH_MLA_RETURN_IF_ERROR(check_tokens(c_kv, "[n, h_kv, 512]", kLatentDim, n, args.kv_cache));
  FLASH_MLA_RETURN_IF_ERROR(check_tokens(k_pe, "[n, h_kv, 64]", kRopeDim, n, args.kv_cache));
  for (const Tensor* input : {&slots, &c_kv, &k_pe}) {
    FLASH_MLA_RETURN_IF_ERROR(check_apart(reach_of(kv_cache), reach_of(*input)));
    FLASH_MLA_RETURN_IF_ERROR(check_apart(reach_of(k_rope_cache), reach_of(*input)));
  }
  FLASH_MLA_RETURN_IF_ERROR(check_apart(reach_of(kv_cache), reach_of(k_rope_cache)));

  problem->dtype = args.kv_cache.dtype;
  problem->tokens = n;
  problem->num_heads_kv = static_cast<std::int32_t>(args.kv_cache.shape[2]);
  problem->c_kv = {args.c_kv.data, 0, stride_of(args.c_kv, 0), stride_of(args.c_kv, 1)};
  problem->k_pe = {args.k_pe.data, 0, stride_of(args.k_pe, 0), stride_of(args.k_pe, 1)};
  problem->slots = static_cast<const std::int64_t*>(args.slot_mapping.data);
  problem->slots_stride = stride_of(args.slot_mapping, 0);
  return host_readable(device) ? check_slots(*problem) : Status();
}

Status validate_copy_pages(const TensorView& cache_view, const TensorView& pairs_view,
                           CopyPagesProblem* problem) noexcept {
  const Tensor cache{"cache", cache_view};
  const Tensor pairs{"page_pairs", pairs_view};
  const Device device = cache_view.device;
  FLASH_MLA_RETURN_IF_ERROR(check_float_dtype(cache));
  FLASH_MLA_RETURN_IF_ERROR(check_form(cache, 4, "[num_pages, page_size, h_kv, d]", cache_view.dtype, device));
  FLASH_MLA_RETURN_IF_ERROR(check_page_dims(cache));
  if (cache_view.shape[3] < 1 || cache_view.shape[3] > kInt32Max) {
    return invalid("cache.shape[3] is ", cache_view.shape[3], "; expected 1 to ", kInt32Max, " columns");
  }
  FLASH_MLA_RETURN_IF_ERROR(check_memory<4>(cache, {.written = true, .tma_aligned = needs_tma(device)}));
  FLASH_MLA_RETURN_IF_ERROR(check_form(pairs, 2, "[n, 2]", DType::i64, device));
  FLASH_MLA_RETURN_IF_ERROR(check_dim(pairs, 1, 2, "(source, destination)"));
  FLASH_MLA_RETURN_IF_ERROR(check_memory<2>(pairs, {}));
  if (pairs_view.shape[0] > 1 && pairs_view.strides[0] != 2) {
    return invalid("page_pairs.strides[0] is ", pairs_view.strides[0], "; expected 2: pairs must be contiguous");
  }
  FLASH_MLA_RETURN_IF_ERROR(check_apart(reach_of(cache), reach_of(pairs)));

  *problem = {.pages = pages_of(cache_view, 0),
              .element_bytes = size_in_bytes(cache_view.dtype),
              .page_size = static_cast<std::int32_t>(cache_view.shape[1]),
              .num_heads_kv = static_cast<std::int32_t>(cache_view.shape[2]),
              .columns = static_cast<std::int32_t>(cache_view.shape[3]),
              .num_pages = cache_view.shape[0],
              .pairs = pairs_view.shape[0],
              .page_pairs = static_cast<const std::int64_t*>(pairs_view.data)};
  if (!host_readable(device)) return {};
  FLASH_MLA_RETURN_IF_ERROR(check_page_ids(*problem));
  return check_destinations(*problem);
}

}  // namespace flash_mla
