// See float_format.h. Everything goes through frexp, ldexp and nearbyint, which are exact or round as IEEE-754 asks.
#include "reference/float_format.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace flash_mla::reference {
namespace {

// Exponent of the smallest normal number, e.g. -14 for f16.
int min_exponent(FloatFormat format) { return 2 - (1 << (format.exponent_bits - 1)); }

std::uint32_t infinity_bits(FloatFormat format) { return ((1u << format.exponent_bits) - 1u) << format.fraction_bits; }

std::uint32_t sign_bit(FloatFormat format) { return 1u << (format.exponent_bits + format.fraction_bits); }

// All values of a 16-bit format, by their bits.
const std::vector<double>& value_table(FloatFormat format) {
  const auto make = [](FloatFormat f) {
    std::vector<double> values(1u << 16);
    for (std::uint32_t bits = 0; bits < values.size(); ++bits) values[bits] = decode_float(f, bits);
    return values;
  };
  static const std::vector<double> bf16 = make(kBf16);
  static const std::vector<double> f16 = make(kF16);
  return format.exponent_bits == kBf16.exponent_bits ? bf16 : f16;
}

FloatFormat format_of(DType dtype) { return dtype == DType::bf16 ? kBf16 : kF16; }

}  // namespace

double decode_float(FloatFormat format, std::uint32_t bits) {
  const double sign = (bits & sign_bit(format)) != 0 ? -1.0 : 1.0;
  const std::uint32_t magnitude = bits & (sign_bit(format) - 1u);
  if (magnitude > infinity_bits(format)) return std::numeric_limits<double>::quiet_NaN();
  if (magnitude == infinity_bits(format)) return sign * std::numeric_limits<double>::infinity();
  const int exponent_field = static_cast<int>(magnitude >> format.fraction_bits);
  const std::uint32_t hidden = exponent_field == 0 ? 0u : 1u << format.fraction_bits;
  const double fraction = (magnitude & ((1u << format.fraction_bits) - 1u)) + hidden;
  const int exponent = std::max(exponent_field, 1) - 1 + min_exponent(format);
  return sign * std::ldexp(fraction, exponent - format.fraction_bits);
}

std::uint32_t encode_float(FloatFormat format, double value) {
  const std::uint32_t sign = std::signbit(value) ? sign_bit(format) : 0u;
  if (std::isnan(value)) return sign | infinity_bits(format) | (1u << (format.fraction_bits - 1));
  if (std::isinf(value)) return sign | infinity_bits(format);
  if (value == 0) return sign;
  int leading = 0;
  static_cast<void>(std::frexp(value, &leading));
  const int exponent = std::max(leading - 1, min_exponent(format));
  const double fraction = std::nearbyint(std::ldexp(std::fabs(value), format.fraction_bits - exponent));
  if (exponent > -min_exponent(format) + 1) return sign | infinity_bits(format);
  // The hidden bit of a normal fraction adds one to the exponent field; so does a carry out of the rounding.
  const std::uint32_t field = static_cast<std::uint32_t>(exponent - min_exponent(format)) << format.fraction_bits;
  return sign | std::min(field + static_cast<std::uint32_t>(fraction), infinity_bits(format));
}

double load_element(DType dtype, const void* data) {
  if (dtype == DType::f32) {
    float value;
    std::memcpy(&value, data, sizeof(value));
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, data, sizeof(bits));
  return value_table(format_of(dtype))[bits];
}

void store_element(DType dtype, void* data, double value) {
  if (dtype == DType::f32) {
    const float narrowed = static_cast<float>(value);
    std::memcpy(data, &narrowed, sizeof(narrowed));
    return;
  }
  const auto bits = static_cast<std::uint16_t>(encode_float(format_of(dtype), value));
  std::memcpy(data, &bits, sizeof(bits));
}

double round_to(DType dtype, double value) {
  if (dtype == DType::f32) return static_cast<float>(value);
  return decode_float(format_of(dtype), encode_float(format_of(dtype), value));
}

}  // namespace flash_mla::reference
