// The reference's own number formats, against bit patterns from the IEEE-754 tables and against float arithmetic.
#include "reference/float_format.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "reference/random.h"

namespace flash_mla::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Known {
  FloatFormat format;
  std::uint32_t bits;
  double value;
};

TEST(FloatFormat, KnownBitPatterns) {
  const Known known[] = {
      {kF16, 0x0000, 0.0},        {kF16, 0x0001, 0x1p-24},    {kF16, 0x03ff, 0x1.ff8p-15}, {kF16, 0x0400, 0x1p-14},
      {kF16, 0x3555, 0x1.554p-2}, {kF16, 0x3c00, 1.0},        {kF16, 0xc000, -2.0},        {kF16, 0x7bff, 65504.0},
      {kF16, 0x7c00, kInfinity},  {kF16, 0xfc00, -kInfinity}, {kBf16, 0x0001, 0x1p-133},   {kBf16, 0x0080, 0x1p-126},
      {kBf16, 0x3f80, 1.0},       {kBf16, 0x4049, 3.140625},  {kBf16, 0xc2f7, -123.5},     {kBf16, 0x7f7f, 0x1.fep127},
      {kBf16, 0x7f80, kInfinity},
  };
  for (const Known& k : known) {
    EXPECT_EQ(decode_float(k.format, k.bits), k.value) << std::hex << k.bits;
    EXPECT_EQ(encode_float(k.format, k.value), k.bits) << k.value;
  }
}

TEST(FloatFormat, EveryBitPatternComesBack) {
  for (const FloatFormat format : {kBf16, kF16}) {
    for (std::uint32_t bits = 0; bits < 1u << 16; ++bits) {
      const double value = decode_float(format, bits);
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(decode_float(format, encode_float(format, value))));
      } else {
        ASSERT_EQ(encode_float(format, value), bits);
      }
    }
  }
}

// bf16 is the upper half of a float.
TEST(FloatFormat, Bf16IsTheUpperHalfOfAFloat) {
  for (std::uint32_t bits = 0; bits < 1u << 16; ++bits) {
    const double expected = std::bit_cast<float>(bits << 16);
    const double value = decode_float(kBf16, bits);
    ASSERT_TRUE(value == expected || (std::isnan(value) && std::isnan(expected))) << std::hex << bits;
  }
}

// Between two neighbours the nearer wins, and halfway the even one, up to and including infinity.
TEST(FloatFormat, RoundsToNearestEven) {
  for (const FloatFormat format : {kBf16, kF16}) {
    const std::uint32_t infinity = encode_float(format, kInfinity);
    for (std::uint32_t bits = 0; bits + 1 < infinity; ++bits) {
      const double low = decode_float(format, bits), high = decode_float(format, bits + 1);
      const double middle = (low + high) / 2;
      ASSERT_EQ(encode_float(format, middle), bits % 2 == 0 ? bits : bits + 1) << std::hex << bits;
      ASSERT_EQ(encode_float(format, std::nextafter(middle, 0)), bits) << std::hex << bits;
      ASSERT_EQ(encode_float(format, std::nextafter(middle, kInfinity)), bits + 1) << std::hex << bits;
    }
  }
  EXPECT_EQ(encode_float(kF16, 65519.99), 0x7bffu);
  EXPECT_EQ(encode_float(kF16, 65520), 0x7c00u);
  EXPECT_EQ(encode_float(kBf16, 1e300), 0x7f80u);
  EXPECT_EQ(encode_float(kBf16, -1e300), 0xff80u);
  EXPECT_EQ(encode_float(kF16, 1e-300), 0u);
  EXPECT_EQ(encode_float(kF16, -1e-300), 0x8000u);
}

TEST(FloatFormat, ElementsInMemory) {
  Random random(3);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (int i = 0; i < 1000; ++i) {
      const double value = std::ldexp(static_cast<double>(random.between(-1000000, 1000000)), -18);
      char memory[5] = {};  // written at an odd address
      store_element(dtype, memory + 1, value);
      EXPECT_EQ(load_element(dtype, memory + 1), round_to(dtype, value));
      EXPECT_NEAR(round_to(dtype, value), value, std::fabs(value) * 0x1p-8 + 0x1p-25);
    }
    char memory[4];
    store_element(dtype, memory, kNan);
    EXPECT_TRUE(std::isnan(load_element(dtype, memory)));
  }
}

}  // namespace
}  // namespace flash_mla::reference
