// Counts what operator new hands out, and makes it fail on demand: for tests of steady states and of full memory.
#pragma once

#include <cstdint>

namespace flash_mla::test {

// Allocations of this thread so far.
std::int64_t allocation_count();

// While it lives, the (n + 1)-th allocation of this thread fails, and so do those after it.
class FailAllocations {
 public:
  explicit FailAllocations(std::int64_t n);
  ~FailAllocations();
  FailAllocations(const FailAllocations&) = delete;
  FailAllocations& operator=(const FailAllocations&) = delete;
};

}  // namespace flash_mla::test
