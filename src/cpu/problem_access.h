// Where rows, tokens and results of a DecodeProblem lie: the only place of the CPU backend that does stride arithmetic.
#pragma once

#include <cstdint>

#include "core/problem.h"
#include "core/row_packing.h"
#include "flash_mla/plan.h"
#include "schedule/tile_cursor.h"
#include "schedule/work.h"

namespace flash_mla::cpu {

inline char* element_of(void* base, std::int64_t index, std::int64_t element_bytes) {
  return static_cast<char*>(base) + index * element_bytes;
}

// The element at which a row of q, out or lse begins. `query` counts within the request.
inline char* row_address(const RowsView& view, const Work& work, std::int32_t request, QueryHead at,
                         std::int64_t element_bytes) {
  const std::int64_t token = std::int64_t{work.first_query(request)} + at.query;
  return element_of(view.data, request * view.batch_stride + token * view.token_stride + at.head * view.head_stride,
                    element_bytes);
}

// A token's latent or rope part.
inline char* token_address(const PagesView& pages, std::int64_t page, std::int64_t row, std::int64_t kv_head,
                           std::int64_t element_bytes) {
  return element_of(pages.data, page * pages.page_stride + row * pages.token_stride + kv_head * pages.head_stride,
                    element_bytes);
}

}  // namespace flash_mla::cpu
