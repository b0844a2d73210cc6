// Requests by id: an array of slots that are reused, each with a generation that is part of the id, so that a stale id
// never finds the slot's next owner. Constant time; in a steady state nothing is allocated, for a slot keeps the
// capacity of its page list.
//
//   id = generation << 32 | slot, generation >= 1 (so a zero id names nothing)
#pragma once

#include <cstdint>
#include <vector>

#include "core/error.h"
#include "flash_mla/paged_kv_cache.h"

namespace flash_mla {

struct Request {
  std::vector<std::int32_t> pages;  // [ceil(length / page_size)]
  std::int64_t length = 0;          // tokens
  std::int32_t generation = 1;
  bool live = false;
  std::uint64_t last_call = 0;  // number of the last call that named this request: finds duplicates
};

class RequestTable {
 public:
  [[nodiscard]] std::int64_t size() const noexcept { return num_live_; }
  // All slots; those that are not live are to be skipped.
  [[nodiscard]] const std::vector<Request>& slots() const noexcept { return slots_; }

  [[nodiscard]] Request* find(RequestId id) noexcept {
    const std::int64_t bits = static_cast<std::int64_t>(id), slot = bits & 0xffffffff;
    if (slot >= static_cast<std::int64_t>(slots_.size())) return nullptr;
    Request& request = slots_[slot];
    return request.live && request.generation == bits >> 32 ? &request : nullptr;
  }

  // The error for an id that find() does not know. `name` is the argument's name.
  [[nodiscard]] Status unknown(const char* name, RequestId id) const noexcept {
    const std::int64_t bits = static_cast<std::int64_t>(id), slot = bits & 0xffffffff;
    const std::int64_t generation = bits >> 32;
    const bool removed =
        slot < static_cast<std::int64_t>(slots_.size()) && generation >= 1 && generation < slots_[slot].generation;
    return make_error(StatusCode::invalid_argument, "%s is %lld, %s", name, static_cast<long long>(bits),
                      removed ? "a request that was removed" : "which is no request of this cache");
  }

  // Makes the next insert() unable to fail. May throw std::bad_alloc, with nothing changed; may move the requests.
  void reserve_one() {
    if (!free_.empty()) return;
    if (free_.capacity() < slots_.size() + 1) free_.reserve(2 * slots_.size() + 16);  // erase() must not allocate
    slots_.emplace_back();
    free_.push_back(static_cast<std::int32_t>(slots_.size()) - 1);
  }

  // The (empty) page list of the request that insert() will make. Precondition of both: reserve_one().
  [[nodiscard]] std::vector<std::int32_t>& next_pages() noexcept { return slots_[free_.back()].pages; }

  RequestId insert() noexcept {
    const std::int32_t slot = free_.back();
    free_.pop_back();
    slots_[slot].live = true;
    ++num_live_;
    return RequestId{static_cast<std::int64_t>(slots_[slot].generation) << 32 | slot};
  }

  // Precondition: the request's pages have been released.
  void erase(Request& request) noexcept {
    request.pages.clear();
    request.length = 0;
    request.live = false;
    --num_live_;
    // After 2^31 - 1 owners a slot is retired rather than let an id return.
    if (request.generation == INT32_MAX) return;
    ++request.generation;
    free_.push_back(static_cast<std::int32_t>(&request - slots_.data()));
  }

 private:
  std::vector<Request> slots_;
  std::vector<std::int32_t> free_;
  std::int64_t num_live_ = 0;
};

}  // namespace flash_mla
