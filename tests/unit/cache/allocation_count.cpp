// Replaces the global operator new of this test program: see allocation_count.h.
#include "allocation_count.h"

#include <cstdlib>
#include <limits>
#include <new>

namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
thread_local std::int64_t count = 0;
thread_local std::int64_t fail_from = kNever;

void* allocate(std::size_t bytes) {
  if (count >= fail_from) throw std::bad_alloc();
  ++count;
  if (void* data = std::malloc(bytes ? bytes : 1)) return data;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void operator delete(void* data) noexcept { std::free(data); }
void operator delete[](void* data) noexcept { std::free(data); }
void operator delete(void* data, std::size_t) noexcept { std::free(data); }
void operator delete[](void* data, std::size_t) noexcept { std::free(data); }

namespace flash_mla::test {

std::int64_t allocation_count() { return count; }
FailAllocations::FailAllocations(std::int64_t n) { fail_from = count + n; }
FailAllocations::~FailAllocations() { fail_from = kNever; }

}  // namespace flash_mla::test
