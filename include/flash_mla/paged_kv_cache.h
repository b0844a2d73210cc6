// The paged latent cache of an engine: page pool, block tables, sharing, append.
//
// Pages are managed as an operating system manages memory: handed out on demand as requests grow, counted by reference
// when requests share them, copied on the first write to a shared one, returned at once, never moved. All layers share
// one block table; a page id names one page in each layer's array. Every call either does all that it was asked or
// changes nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "flash_mla/export.h"
#include "flash_mla/plan.h"
#include "flash_mla/status.h"
#include "flash_mla/types.h"

namespace flash_mla {

// ---- Operations on a cache that the caller owns -------------------------------------------------------------------

struct AppendArgs {
  TensorView c_kv;          // dtype [n, h_kv, 512]
  TensorView k_pe;          // dtype [n, h_kv, 64]
  TensorView kv_cache;      // dtype [num_pages, page_size, h_kv, 576], or 512 with k_rope_cache given
  TensorView k_rope_cache;  // dtype [num_pages, page_size, h_kv, 64]
  TensorView slot_mapping;  // i64 [n]: page * page_size + row of each token; negative slots are skipped
};

// Writes n tokens into their slots. Errors: invalid_argument; a slot past the end is one on the CPU and is skipped on
// CUDA. Two equal slots give either value. Thread-safe for distinct slots.
FLASH_MLA_API Status append_kv(const AppendArgs& args, Stream stream = {}) noexcept;

// Copies whole pages: page_pairs i64 [n, 2] of (source, destination), in host memory for CPU caches and device memory
// for CUDA ones. No destination may be a source or occur twice. `cache` is [num_pages, page_size, h_kv, d].
FLASH_MLA_API Status copy_pages(const TensorView& cache, const TensorView& page_pairs, Stream stream = {}) noexcept;

// ---- The pool ---------------------------------------------------------------------------------------------------

struct PagedKvCacheConfig {
  Device device = {};
  DType dtype = DType::bf16;  // bf16, f16; f32 on the CPU only
  std::int32_t num_layers = 1;
  std::int32_t num_pages = 0;   // of each layer
  std::int32_t page_size = 64;  // tokens; 16, 32, 64 or a multiple of 64
  std::int32_t num_heads_kv = 1;
};

// Names a request of one cache. Never used again after remove(), so a stale id is an error, not another request.
enum class RequestId : std::int64_t {};

struct PagedKvCacheStats {
  std::int32_t pages_total = 0;
  std::int32_t pages_in_use = 0;  // each shared page counts once
  std::int32_t pages_shared = 0;  // pages that two or more requests reference
  std::int64_t requests = 0;
  std::int64_t tokens = 0;         // summed over requests, shared ones counted for each
  std::int64_t tokens_stored = 0;  // distinct tokens in pages
  // 1 - tokens_stored / (pages_in_use * page_size): the share of the pages in use that holds no token; 0 when empty.
  double internal_fragmentation = 0;
};

// Not thread-safe: one owner calls it, as an engine's scheduler does; const functions too. Streams given to the calls
// of one cache are one stream, or ordered by the caller. Movable, not copyable; a cache that was moved from refuses
// calls.
//
// In a call with num_tokens a request that occurs twice is an error; calls that only read accept it.
class FLASH_MLA_API PagedKvCache {
 public:
  // Allocates num_layers * num_pages * page_size * num_heads_kv * 576 elements on the device.
  static Result<PagedKvCache> create(const PagedKvCacheConfig& config) noexcept;

  PagedKvCache(PagedKvCache&&) noexcept;
  PagedKvCache& operator=(PagedKvCache&&) noexcept;
  ~PagedKvCache();

  [[nodiscard]] const PagedKvCacheConfig& config() const noexcept;

  // An empty request: no tokens, no pages.
  Result<RequestId> add() noexcept;
  // A request that shares every token of `parent` (beam search, common prefix). Copies no page.
  Result<RequestId> fork(RequestId parent) noexcept;
  // Ends a request; pages that no other request references are free at once.
  Status remove(RequestId request) noexcept;

  // Gives requests[i] room for num_tokens[i] >= 0 more tokens in every layer, and counts them as its own: new pages
  // are taken from the pool, and a shared, partly filled last page is copied first (on `stream`).
  // Errors: out_of_pages says how many were needed and free; the requests are as they were.
  Status grow(std::span<const RequestId> requests, std::span<const std::int32_t> num_tokens,
              Stream stream = {}) noexcept;
  // Forgets the tokens of a request from `length` on (rejected draft tokens); pages left empty are free at once.
  Status truncate(RequestId request, std::int64_t length) noexcept;

  // Writes the last num_tokens[i] tokens of requests[i] in one layer, rows in request order:
  // c_kv dtype [sum of num_tokens, h_kv, 512], k_pe dtype [sum of num_tokens, h_kv, 64] on the cache's device.
  // A token in a page that is shared with another request is an error: grow() makes the new tokens' pages private.
  Status write(std::int32_t layer, std::span<const RequestId> requests, std::span<const std::int32_t> num_tokens,
               const TensorView& c_kv, const TensorView& k_pe, Stream stream = {}) noexcept;
  // grow() and write() in one for a cache of one layer. If the device fails while it writes, the new tokens are taken
  // back, but a page that was copied stays copied.
  Status append(std::span<const RequestId> requests, std::span<const std::int32_t> num_tokens, const TensorView& c_kv,
                const TensorView& k_pe, Stream stream = {}) noexcept;

  // Slots (page * page_size + row) of the last num_tokens[i] tokens of requests[i], in request order, for append_kv.
  Status slots(std::span<const RequestId> requests, std::span<const std::int32_t> num_tokens,
               std::span<std::int64_t> out) const noexcept;

  // What decode wants, written to host memory: block_table i32 [n, columns] (row-major, unused entries -1) and
  // cache_seqlens i32 [n]. `columns` must hold the longest request: max_pages(requests).
  Status tables(std::span<const RequestId> requests, std::int64_t columns, std::span<std::int32_t> block_table,
                std::span<std::int32_t> cache_seqlens) const noexcept;
  [[nodiscard]] Result<std::int64_t> max_pages(std::span<const RequestId> requests) const noexcept;

  [[nodiscard]] Result<std::int64_t> length(RequestId request) const noexcept;
  [[nodiscard]] std::int32_t free_pages() const noexcept;
  // Pages that growing these requests would take from the pool, copies of shared pages included.
  [[nodiscard]] Result<std::int64_t> pages_needed(std::span<const RequestId> requests,
                                                  std::span<const std::int32_t> num_tokens) const noexcept;
  [[nodiscard]] PagedKvCacheStats stats() const noexcept;

  // One layer as decode's kv_cache: dtype [num_pages, page_size, h_kv, 576]. Valid while the cache lives.
  [[nodiscard]] Result<TensorView> layer(std::int32_t layer) const noexcept;

 private:
  friend struct PagedKvCacheAccess;
  struct Impl;
  explicit PagedKvCache(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flash_mla
