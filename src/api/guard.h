// The library's border: whatever is thrown below becomes a Status.
#pragma once

#include <new>

#include "api/message.h"
#include "flash_mla/status.h"

namespace flash_mla {

// Returns what `body` returns (a Status or a Result), or the Status of what it throws.
template <class Body>
auto guarded(const char* call, Body&& body) noexcept -> decltype(body()) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return failure(StatusCode::out_of_memory, call, ": the host is out of memory");
  } catch (...) {
    return failure(StatusCode::internal, call, ": an unexpected exception was thrown below");
  }
}

}  // namespace flash_mla
