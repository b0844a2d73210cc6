// Which pages are free, and how many requests reference each of the others. Knows nothing of storage.
//
// The free list is a stack (last in, first out): the page freed last is taken first, so its memory is the warmest in
// caches and TLB, and pages beyond the peak use are never touched, hence never backed by the operating system. A queue
// would only help if freed pages had to rest; stream order already keeps a later write behind an earlier read.
#pragma once

#include <cstdint>
#include <vector>

namespace flash_mla {

class PagePool {
 public:
  // Throws std::bad_alloc; nothing else here does. A fresh pool hands out pages 0, 1, 2, ...
  explicit PagePool(std::int32_t num_pages) : free_(num_pages), references_(num_pages, 0), num_free_(num_pages) {
    for (std::int32_t i = 0; i < num_pages; ++i) free_[i] = num_pages - 1 - i;
  }

  [[nodiscard]] std::int32_t num_pages() const noexcept { return static_cast<std::int32_t>(references_.size()); }
  [[nodiscard]] std::int32_t num_free() const noexcept { return num_free_; }
  [[nodiscard]] std::int32_t num_in_use() const noexcept { return num_pages() - num_free_; }
  [[nodiscard]] std::int32_t num_shared() const noexcept { return num_shared_; }
  [[nodiscard]] std::int32_t references(std::int32_t page) const noexcept { return references_[page]; }

  // What the (i + 1)-th take() from now on will return, so that a caller can prepare a page before committing to it.
  // Precondition: i < num_free().
  [[nodiscard]] std::int32_t peek(std::int32_t i) const noexcept { return free_[num_free_ - 1 - i]; }

  // A free page, now referenced once. Precondition: num_free() > 0.
  std::int32_t take() noexcept {
    const std::int32_t page = free_[--num_free_];
    references_[page] = 1;
    return page;
  }

  // Precondition of both: the page is in use.
  void retain(std::int32_t page) noexcept { num_shared_ += ++references_[page] == 2; }
  void release(std::int32_t page) noexcept {
    const std::int32_t left = --references_[page];
    if (left == 0) free_[num_free_++] = page;
    num_shared_ -= left == 1;
  }

 private:
  std::vector<std::int32_t> free_;        // [num_pages], the first num_free_ of them are the stack
  std::vector<std::int32_t> references_;  // [num_pages]
  std::int32_t num_free_ = 0;
  std::int32_t num_shared_ = 0;  // pages with two references or more
};

}  // namespace flash_mla
