// The bookkeeping of a paged cache, apart from its storage: which pages hold the tokens of which request.
//
//   token t of a request lies in page pages[t / page_size], row t % page_size; a slot is page * page_size + row.
//   Full pages of a common prefix stay shared; only a last page that is partly filled is ever copied, because only
//   there does a request write behind tokens that another one may hold.
//
// Growing comes in two halves so that storage can copy pages in between and still fail: prepare_growth() checks and
// reserves everything and says what to copy, commit_growth() cannot fail. Used by PagedKvCache, which owns the border:
// functions that are not noexcept may throw std::bad_alloc, and then nothing has changed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/page_pool.h"
#include "cache/request_table.h"
#include "flash_mla/paged_kv_cache.h"

namespace flash_mla {

using RequestIds = std::span<const RequestId>;
using TokenCounts = std::span<const std::int32_t>;

// Where a walk over the slots of a call's tokens stands.
struct SlotCursor {
  std::size_t request = 0;  // index into the call's requests
  std::int64_t token = 0;   // of that request's counted tokens
};

class PageBook {
 public:
  PageBook(std::int32_t num_pages, std::int32_t page_size)
      : pool_(num_pages), page_size_(page_size), page_notes_(num_pages) {}

  [[nodiscard]] const PagePool& pool() const noexcept { return pool_; }

  Result<RequestId> add();
  Result<RequestId> fork(RequestId parent);
  Status remove(RequestId id) noexcept;
  Status truncate(RequestId id, std::int64_t length) noexcept;

  // What growing would take from the pool, copies included.
  Result<std::int64_t> pages_needed(RequestIds ids, TokenCounts counts);
  // First half of growing; gives the sum of counts. On success page_copies() lists (source, destination) pairs; until
  // commit_growth() nobody owns the destinations and nothing has changed.
  Result<std::int64_t> prepare_growth(RequestIds ids, TokenCounts counts);
  [[nodiscard]] std::span<const std::int64_t> page_copies() const noexcept { return page_copies_; }
  void commit_growth() noexcept;
  // Takes back the tokens of the growth just committed, when their contents could not be written. Copies of pages stay:
  // the shared page that was left behind may have been overwritten past this request's length.
  void retract_growth() noexcept;

  // Checks a call about the last counts[i] tokens of each request and gives the sum of counts. `writable`: a token in a
  // page that another request shares is an error.
  Result<std::int64_t> begin_slots(RequestIds ids, TokenCounts counts, bool writable);
  // The next out.size() slots of the tokens that begin_slots() checked or commit_growth() added.
  void next_slots(SlotCursor& cursor, std::span<std::int64_t> out) const noexcept;

  // Reading; a request may occur twice.
  Result<std::int64_t> length(RequestId id) noexcept;
  Result<std::int64_t> max_pages(RequestIds ids) noexcept;
  Status tables(RequestIds ids, std::int64_t columns, std::span<std::int32_t> block_table,
                std::span<std::int32_t> cache_seqlens) noexcept;
  PagedKvCacheStats stats() noexcept;

 private:
  // One request's share of a call.
  struct Step {
    Request* request = nullptr;
    std::int32_t tokens = 0;
    std::int64_t new_pages = 0;  // growing only
    bool copies_last = false;    // growing only
  };
  // Scratch of one call for each page, all zero between calls.
  struct PageNote {
    std::int32_t count = 0;
    std::int32_t rows = 0;
  };

  [[nodiscard]] std::int64_t pages_for(std::int64_t tokens) const noexcept;
  void cut(Request& request, std::int64_t length) noexcept;
  Status resolve(RequestIds ids, TokenCounts counts);
  Result<std::int64_t> plan_growth(RequestIds ids, TokenCounts counts);
  Status check_private(std::size_t index, RequestId id) const noexcept;
  Status find_all(RequestIds ids, std::int64_t* longest) noexcept;
  [[nodiscard]] std::int64_t rows_unused() noexcept;

  PagePool pool_;
  RequestTable requests_;
  std::int32_t page_size_ = 0;
  std::int64_t tokens_ = 0;  // summed over requests
  std::uint64_t call_ = 0;
  std::vector<Step> steps_;  // of the current call; capacity is kept
  std::vector<std::int64_t> page_copies_;
  std::vector<PageNote> page_notes_;  // [num_pages]
};

}  // namespace flash_mla
