#include "cpu/load.h"

#include <cstring>

#include "core/int_math.h"
#include "cpu/problem_access.h"
#include "cpu/rows.h"

namespace flash_mla::cpu {
namespace {

// One row of 576 from its two parts.
void load_row(const char* latent, const char* rope, DType dtype, ComputeType type, char* to) {
  const std::int64_t element = size_in_bytes(type);
  char* rope_to = to + kLatentDim * element;
  if (dtype == DType::f32 || type == ComputeType::bf16) {
    std::memcpy(to, latent, kLatentDim * element);
    std::memcpy(rope_to, rope, kRopeDim * element);
  } else {
    convert_to_f32(latent, dtype, reinterpret_cast<float*>(to), kLatentDim);
    convert_to_f32(rope, dtype, reinterpret_cast<float*>(rope_to), kRopeDim);
  }
}

void zero_rows(char* rows, std::int64_t count, std::int64_t row_bytes) {
  if (count > 0) std::memset(rows, 0, count * row_bytes);
}

}  // namespace

void load_queries(const DecodeProblem& problem, const Work& work, const Tile& tile, ComputeType type, int padded_rows,
                  void* queries) {
  const std::int64_t element = flash_mla::size_in_bytes(problem.dtype), row_bytes = kHeadDim * size_in_bytes(type);
  char* to = static_cast<char*>(queries);
  for (std::int32_t i = 0; i < tile.num_rows; ++i, to += row_bytes) {
    const QueryHead at = unpack_row(tile.first_row + i, tile.kv_head, work.heads_per_kv);
    load_row(row_address(problem.q_latent, work, tile.request, at, element),
             row_address(problem.q_rope, work, tile.request, at, element), problem.dtype, type, to);
  }
  zero_rows(to, padded_rows - tile.num_rows, row_bytes);
}

void load_tokens(const DecodeProblem& problem, const Tile& tile, const TokenRange& range, ComputeType type,
                 void* tokens) {
  const std::int64_t element = flash_mla::size_in_bytes(problem.dtype), row_bytes = kHeadDim * size_in_bytes(type);
  const CacheView& cache = problem.cache;
  const std::int32_t* pages = problem.block_table + tile.request * problem.block_table_stride;
  char* to = static_cast<char*>(tokens);
  for (std::int32_t token = range.begin; token < range.end;) {
    const std::int64_t page = pages[token / cache.page_size];
    const std::int32_t page_end = min_of((token / cache.page_size + 1) * cache.page_size, range.end);
    for (; token < page_end; ++token, to += row_bytes) {
      const std::int32_t row = token % cache.page_size;
      load_row(token_address(cache.latent, page, row, tile.kv_head, element),
               token_address(cache.rope, page, row, tile.kv_head, element), problem.dtype, type, to);
    }
  }
  zero_rows(to, range.begin + range.room - range.end, row_bytes);
}

}  // namespace flash_mla::cpu
