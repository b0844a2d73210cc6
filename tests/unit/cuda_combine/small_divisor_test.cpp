// SmallDivisor against the division of integers.
#include "cuda/combine/small_divisor.h"

#include <gtest/gtest.h>

namespace flash_mla::cuda {
namespace {

void check(int a, int divisor) {
  const SmallDivisor by(divisor);
  ASSERT_EQ(by.quotient(a), a / divisor) << a << " / " << divisor;
  ASSERT_EQ(by.remainder(a), a % divisor) << a << " / " << divisor;
  ASSERT_EQ(by.rounded_up(a), (a + divisor - 1) / divisor) << a << " / " << divisor;
}

TEST(SmallDivisor, AllSmallNumbers) {
  for (int divisor = 1; divisor <= 2100; ++divisor) {
    for (int a = 0; a < 1100; ++a) check(a, divisor);
  }
}

TEST(SmallDivisor, AroundEveryMultipleUpToItsLimit) {
  constexpr int kLimit = 1 << 20;
  for (int divisor = 1; divisor <= 2047; divisor += divisor < 70 ? 1 : 83) {
    for (int multiple = 0; multiple + divisor < kLimit; multiple += divisor) {
      check(multiple, divisor);
      if (multiple > 0) check(multiple - 1, divisor);
    }
  }
}

}  // namespace
}  // namespace flash_mla::cuda
