// Where the pages of a PagedKvCache lie. The bookkeeping knows nothing of it; tests put their own in its place.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "core/backend.h"
#include "flash_mla/paged_kv_cache.h"

namespace flash_mla {

class PageStorage {
 public:
  virtual ~PageStorage() = default;

  // Copies whole pages in every layer: pairs of (source, destination) in host memory.
  virtual Status copy_pages(std::span<const std::int64_t> pairs, Stream stream) noexcept = 0;
  // Writes rows of c_kv and k_pe into slots of one layer; the slots are in host memory.
  virtual Status append(std::int32_t layer, std::span<const std::int64_t> slots, const TensorView& c_kv,
                        const TensorView& k_pe, Stream stream) noexcept = 0;
  // [num_pages, page_size, h_kv, 576]. Precondition: 0 <= layer < num_layers.
  [[nodiscard]] virtual TensorView layer(std::int32_t layer) const noexcept = 0;
};

// Slots and page pairs go to the storage in runs of at most this many numbers; an even number.
inline constexpr std::int64_t kMaxIndices = 4096;

// One allocation of the backend for all layers: [num_layers, num_pages, page_size, h_kv, 576]. May throw bad_alloc.
Result<std::unique_ptr<PageStorage>> make_backend_storage(const PagedKvCacheConfig& config, const Backend& backend);

// A cache on a storage of the caller's choice: for tests.
struct PagedKvCacheAccess {
  static PagedKvCache make(const PagedKvCacheConfig& config, std::unique_ptr<PageStorage> storage);
};

}  // namespace flash_mla
