// The library's conversions (core/dtype.h) against the reference's, which share no line with them.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "core/dtype.h"
#include "reference/float_format.h"
#include "reference/random.h"

namespace flash_mla::reference {
namespace {

template <class T>
class LibraryFormat : public testing::Test {
 public:
  static constexpr FloatFormat kFormat = std::is_same_v<T, bf16_t> ? kBf16 : kF16;
};
using Formats = testing::Types<bf16_t, f16_t>;
TYPED_TEST_SUITE(LibraryFormat, Formats);

TYPED_TEST(LibraryFormat, EveryValueToFloat) {
  for (std::uint32_t bits = 0; bits < 1u << 16; ++bits) {
    const double expected = decode_float(TestFixture::kFormat, bits);
    const double value = to_float(TypeParam{static_cast<std::uint16_t>(bits)});
    ASSERT_TRUE(value == expected || (std::isnan(value) && std::isnan(expected))) << std::hex << bits;
    ASSERT_EQ(std::signbit(value), std::signbit(expected) || (std::isnan(value) && bits >> 15)) << std::hex << bits;
  }
}

// Random floats, and all neighbourhoods where the format's values and halfway points lie.
TYPED_TEST(LibraryFormat, FromFloat) {
  const auto check = [](float value) {
    const std::uint16_t expected = encode_float(TestFixture::kFormat, value);
    const std::uint16_t bits = from_float<TypeParam>(value).bits;
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(decode_float(TestFixture::kFormat, bits))) << value;
    } else {
      ASSERT_EQ(bits, expected) << std::hexfloat << value;
    }
  };
  Random random(11);
  for (int i = 0; i < 1000000; ++i) check(std::bit_cast<float>(static_cast<std::uint32_t>(random.next())));
  for (std::uint32_t bits = 0; bits < 1u << 16; ++bits) {
    const auto value = static_cast<float>(decode_float(TestFixture::kFormat, bits));
    const auto next = static_cast<float>(decode_float(TestFixture::kFormat, (bits + 1) & 0xffffu));
    const float middle = value / 2 + next / 2;
    for (const float near : {value, middle, std::nextafterf(middle, -INFINITY), std::nextafterf(middle, INFINITY)}) {
      check(near);
    }
  }
}

}  // namespace
}  // namespace flash_mla::reference
