#include "cpu/load.h"

#include <cstring>

#include "core/int_math.h"
#include "cpu/problem_access.h"
#include "cpu/rows.h"

namespace flash_mla::cpu {
namespace {

// Rows `row` .. `row + count - 1` of a page, as kv head `kv_head` has them.
SourceRows rows_of_page(const DecodeProblem& problem, std::int64_t page, std::int32_t row, std::int32_t count,
                        std::int32_t kv_head) {
  const std::int64_t element = flash_mla::size_in_bytes(problem.dtype);
  const CacheView& cache = problem.cache;
  return {.latent = token_address(cache.latent, page, row, kv_head, element),
          .rope = token_address(cache.rope, page, row, kv_head, element),
          .latent_stride = cache.latent.token_stride,
          .rope_stride = cache.rope.token_stride,
          .rows = count};
}

void zero_rows(void* rows, std::int64_t first, std::int64_t last, ComputeType type) {
  const std::int64_t row_bytes = kHeadDim * size_in_bytes(type);
  if (first < last) std::memset(static_cast<char*>(rows) + first * row_bytes, 0, (last - first) * row_bytes);
}

}  // namespace

void load_queries(const DecodeProblem& problem, const Work& work, const Tile& tile, ComputeType type, int padded_rows,
                  void* queries) {
  const std::int64_t element = flash_mla::size_in_bytes(problem.dtype), row_bytes = kHeadDim * size_in_bytes(type);
  for (std::int32_t i = 0; i < tile.num_rows; ++i) {
    const QueryHead at = unpack_row(tile.first_row + i, tile.kv_head, work.heads_per_kv);
    const SourceRows row{.latent = row_address(problem.q_latent, work, tile.request, at, element),
                         .rope = row_address(problem.q_rope, work, tile.request, at, element),
                         .rows = 1};
    gather_rows(row, problem.dtype, type, static_cast<char*>(queries) + i * row_bytes);
  }
  zero_rows(queries, tile.num_rows, padded_rows, type);
}

void load_tokens(const DecodeProblem& problem, const Tile& tile, const TokenRange& range, ComputeType type,
                 const TokenTarget& to) {
  const std::int32_t page_size = problem.cache.page_size;
  const std::int32_t* pages = problem.block_table + tile.request * problem.block_table_stride;
  const std::int64_t row_bytes = kHeadDim * size_in_bytes(type);
  // Pages and chunks begin at even tokens, so no pair of tokens lies in two pages.
  for (std::int32_t token = range.begin, count; token < range.end; token += count) {
    count = min_of(page_size - token % page_size, range.end - token);
    const std::int64_t done = token - range.begin;
    const SourceRows rows = rows_of_page(problem, pages[token / page_size], token % page_size, count, tile.kv_head);
    void* tokens = to.tokens ? static_cast<char*>(to.tokens) + done * row_bytes : nullptr;
    if (to.panels) {
      gather_paired_rows(rows, static_cast<std::uint16_t*>(tokens), to.panels + done * kPanelColumns, to.panel_stride);
    } else {
      gather_rows(rows, problem.dtype, type, tokens);
    }
  }
  const std::int32_t loaded = range.end - range.begin;
  if (to.tokens) zero_rows(to.tokens, loaded, range.room, type);
  if (to.panels) clear_pairs(to.panels, to.panel_stride, ceil_div(loaded, 2), range.room / 2);
}

bool blocks_lie_in_cache(const CacheView& cache, ComputeType type) {
  return type == ComputeType::bf16 && cache.joint && cache.page_size % kBlockTokens == 0 &&
         cache.latent.token_stride == kHeadDim;
}

void* block_in_cache(const DecodeProblem& problem, const Tile& tile, std::int32_t block) {
  const std::int32_t token = block * kBlockTokens, page_size = problem.cache.page_size;
  const std::int64_t page = problem.block_table[tile.request * problem.block_table_stride + token / page_size];
  return token_address(problem.cache.latent, page, token % page_size, tile.kv_head, sizeof(std::uint16_t));
}

}  // namespace flash_mla::cpu
