// Time in kernels of tests, and waits that end: a mistake is to fail a test, not to hang it.
#pragma once

#include <cstdint>

namespace flash_mla::test {

inline __device__ std::int64_t nanoseconds() {
  std::int64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

// One second from where it is made.
class Patience {
 public:
  [[nodiscard]] __device__ bool left() const { return nanoseconds() < end_; }

 private:
  std::int64_t end_ = nanoseconds() + 1'000'000'000;
};

}  // namespace flash_mla::test
