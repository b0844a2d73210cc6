// Step 5 of docs/algorithm.md: softmax over a row that arrives in pieces (Milakov and Gimelshein, arXiv:1805.02867), in
// base 2:
//
//   z = score * log2(e)      m' = max(m, max z)      l' = l * 2^(m - m') + sum 2^(z - m')      o' = o * 2^(m - m') +
//   ...
//
// The reference subtracted is 0 while no token was seen, so (-inf) - (-inf) never occurs and a masked score (-inf) has
// weight 0. A NaN score makes the sum NaN, and with it the row's out and lse; the maximum need not carry it.
#pragma once

#include <cmath>
#include <limits>

#include "core/host_device.h"

namespace flash_mla {

inline constexpr float kLog2e = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;
inline constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();
inline constexpr float kPositiveInfinity = std::numeric_limits<float>::infinity();

// What to subtract in an exponent instead of a maximum: 0 where nothing was seen.
FLASH_MLA_HOST_DEVICE constexpr float finite_reference(float max) { return max == kNegativeInfinity ? 0.0f : max; }

struct OnlineSoftmax {
  float max = kNegativeInfinity;  // largest z so far; NaN scores are not counted
  float sum = 0.0f;               // of 2^(z - reference())

  FLASH_MLA_HOST_DEVICE float reference() const { return finite_reference(max); }

  // Takes in a piece's maximum. The result is the factor for everything accumulated so far; the sum has it already.
  FLASH_MLA_HOST_DEVICE float raise(float piece_max) {
    if (!(piece_max > max)) return 1.0f;
    const float factor = max == kNegativeInfinity ? 0.0f : exp2f(max - piece_max);
    max = piece_max;
    sum *= factor;
    return factor;
  }
  // The weight of one score of the piece, to be added to `sum` and multiplied with the token's value.
  FLASH_MLA_HOST_DEVICE float weight(float z) const { return exp2f(z - reference()); }

  // For the output: o * normaliser(); 0 for a row that saw no token.
  FLASH_MLA_HOST_DEVICE float normaliser() const { return sum == 0.0f ? 0.0f : 1.0f / sum; }
  // ln sum exp(score): natural logarithm; -inf for a row that saw no token.
  FLASH_MLA_HOST_DEVICE float lse() const {
    return sum == 0.0f ? kNegativeInfinity : (reference() + log2f(sum)) * kLn2;
  }
};

}  // namespace flash_mla
