#include "cpu/operations.h"

#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/partial.h"
#include "cpu/problem_access.h"
#include "cpu/rows.h"
#include "flash_mla/plan.h"

namespace flash_mla::cpu {
namespace {

// Calls run(i) for i in 0 .. n - 1 on as many threads as `bytes` of traffic deserve.
template <class Run>
void for_each(std::int64_t n, std::int64_t bytes, Run run) {
  constexpr std::int64_t kWorthwhileBytes = 1 << 18;  // below, waking the threads costs more than it saves
  if (bytes < kWorthwhileBytes || omp_get_max_threads() == 1) {
    for (std::int64_t i = 0; i < n; ++i) run(i);
    return;
  }
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < n; ++i) run(i);
}

void merge_row(const MergeProblem& problem, std::int64_t row) {
  const int shards = static_cast<int>(problem.shards);
  const std::int64_t element = size_in_bytes(problem.partial_dtype);
  const auto lse_of = [&](int shard) {
    return lse_from_api(
        problem.partial_lse[shard * problem.partial_lse_shard_stride + row * problem.partial_lse_row_stride]);
  };
  const MergedLse merged = merge_lse(shards, lse_of);
  alignas(64) float sum[kLatentDim] = {};
  for (int shard = 0; shard < shards; ++shard) {
    const float factor = merged.factor(lse_of(shard));
    if (factor == 0.0f) continue;  // the out of an empty shard is not read
    const std::int64_t at = shard * problem.partial_out_shard_stride + row * problem.partial_out_row_stride;
    add_scaled(static_cast<const char*>(problem.partial_out) + at * element, problem.partial_dtype, factor, sum,
               kLatentDim);
  }
  scale_to(sum, 1.0f, element_of(problem.out, row * problem.out_row_stride, size_in_bytes(problem.out_dtype)),
           problem.out_dtype, kLatentDim);
  if (problem.lse) problem.lse[row * problem.lse_stride] = lse_for_api(merged.lse());
}

void append_token(const AppendProblem& problem, std::int64_t token) {
  const std::int64_t slot = problem.slots[token * problem.slots_stride];
  const CacheView& cache = problem.cache;
  if (slot < 0 || slot >= cache.num_pages * cache.page_size) return;
  const std::int64_t page = slot / cache.page_size, row = slot % cache.page_size;
  const std::int64_t element = size_in_bytes(problem.dtype);
  const auto copy_part = [&](const RowsView& from, const PagesView& to, std::int64_t head, std::int64_t columns) {
    std::memcpy(token_address(to, page, row, head, element),
                element_of(from.data, token * from.token_stride + head * from.head_stride, element), columns * element);
  };
  for (std::int64_t head = 0; head < problem.num_heads_kv; ++head) {
    copy_part(problem.c_kv, cache.latent, head, kLatentDim);
    copy_part(problem.k_pe, cache.rope, head, kRopeDim);
  }
}

void copy_page(const CopyPagesProblem& problem, std::int64_t from, std::int64_t to) {
  const std::int64_t row_bytes = std::int64_t{problem.columns} * problem.element_bytes;
  for (std::int64_t row = 0; row < problem.page_size; ++row) {
    for (std::int64_t head = 0; head < problem.num_heads_kv; ++head) {
      std::memcpy(token_address(problem.pages, to, row, head, problem.element_bytes),
                  token_address(problem.pages, from, row, head, problem.element_bytes), row_bytes);
    }
  }
}

}  // namespace

void merge_shards(const MergeProblem& problem) {
  const std::int64_t row_bytes = problem.shards * kLatentDim * size_in_bytes(problem.partial_dtype);
  for_each(problem.rows, problem.rows * row_bytes, [&](std::int64_t row) { merge_row(problem, row); });
}

void append(const AppendProblem& problem) {
  const std::int64_t token_bytes = std::int64_t{problem.num_heads_kv} * kHeadDim * size_in_bytes(problem.dtype);
  for_each(problem.tokens, problem.tokens * token_bytes, [&](std::int64_t token) { append_token(problem, token); });
}

void copy_pages(const CopyPagesProblem& problem) {
  const std::int64_t page_bytes =
      std::int64_t{problem.page_size} * problem.num_heads_kv * problem.columns * problem.element_bytes;
  for_each(problem.pairs, problem.pairs * page_bytes,
           [&](std::int64_t i) { copy_page(problem, problem.page_pairs[2 * i], problem.page_pairs[2 * i + 1]); });
}

void* allocate_pages(std::int64_t bytes) {
  constexpr std::int64_t kAlignmentBytes = 128, kHugePageBytes = 1 << 21;
  const std::int64_t alignment = bytes >= 2 * kHugePageBytes ? kHugePageBytes : kAlignmentBytes;
  if (bytes > INT64_MAX - alignment) return nullptr;
  const std::int64_t rounded = round_up(std::max<std::int64_t>(bytes, 1), alignment);
  void* data = std::aligned_alloc(alignment, rounded);
  if (data && alignment == kHugePageBytes) madvise(data, rounded, MADV_HUGEPAGE);  // refused: small pages do as well
  return data;
}

}  // namespace flash_mla::cpu
