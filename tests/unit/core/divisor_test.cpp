// Divisor against the machine's division, at the ends of every quotient and at random.
#include "core/divisor.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <random>

namespace flash_mla {
namespace {

void check(std::uint32_t value, std::uint64_t n) {
  const Divisor divisor(value);
  const auto low = static_cast<std::uint32_t>(n);
  ASSERT_EQ(divisor.quotient(low), low / value) << low << " / " << value;
  if (value <= Divisor::kMost) {
    ASSERT_EQ(divisor.long_quotient(n), n / value) << n << " / " << value;
  }
}

TEST(Divisor, DividesAsTheMachineDoes) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 100000; ++round) {
    const auto value = static_cast<std::uint32_t>(random() >> (32 + random() % 32)) | 1u << random() % 32;
    const std::uint64_t multiple = random() >> random() % 64;
    for (std::uint64_t n : {multiple, multiple / value * value, multiple / value * value - 1}) {
      check(value, n);
      ASSERT_FALSE(HasFailure());
    }
  }
}

TEST(Divisor, Extremes) {
  for (std::uint32_t value : {1u, 2u, 3u, 64u, 65535u, 65536u, Divisor::kMost - 1, Divisor::kMost, 0xffffffffu}) {
    for (std::uint64_t n : {0ull, 1ull, 0xfffffffeull, 0xffffffffull, 0x100000000ull, ~0ull - 1, ~0ull})
      check(value, n);
  }
}

}  // namespace
}  // namespace flash_mla
