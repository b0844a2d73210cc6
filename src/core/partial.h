// Step 8 of docs/algorithm.md: the merge algebra of partial results (o_i, lse_i) of one row over disjoint sets of
// tokens:
//
//   lse = ln sum_i exp(lse_i)        out = sum_i exp(lse_i - lse) * o_i
//
// Commutative, with (anything, -inf) as the neutral element: a partial with lse = -inf saw no token and its o must not
// be read. NaN in any lse makes the row NaN. Sums run in split order, so the same partials give the same bits.
// Used by the merge of splits and by the public merge of shards.
#pragma once

#include <cmath>

#include "core/host_device.h"
#include "core/online_softmax.h"

namespace flash_mla {

// Inside the library an empty row has lse = -inf; at the API it is +inf. These two functions are the only border.
FLASH_MLA_HOST_DEVICE constexpr float lse_for_api(float lse) {
  return lse == kNegativeInfinity ? kPositiveInfinity : lse;
}
FLASH_MLA_HOST_DEVICE constexpr float lse_from_api(float lse) {
  return lse == kPositiveInfinity ? kNegativeInfinity : lse;
}

struct MergedLse {
  float reference = 0.0f;  // the largest lse_i; 0 if every partial is empty
  float sum = 0.0f;        // of exp(lse_i - reference)

  FLASH_MLA_HOST_DEVICE float lse() const { return sum == 0.0f ? kNegativeInfinity : reference + logf(sum); }
  // exp(lse_i - lse): the factor of o_i. 0 exactly if the partial is empty or vanishes beside the others.
  FLASH_MLA_HOST_DEVICE float factor(float lse_i) const { return factor(lse_i, expf(lse_i - reference)); }
  // The same with exp(lse_i - reference) at hand.
  FLASH_MLA_HOST_DEVICE float factor(float lse_i, float exponential) const {
    return lse_i == kNegativeInfinity && sum == sum ? 0.0f : exponential / sum;
  }
};

// lse_of(i) for i in 0 .. n - 1, each called twice.
template <class LseOf>
FLASH_MLA_HOST_DEVICE MergedLse merge_lse(int n, LseOf lse_of) {
  float max = kNegativeInfinity;
  for (int i = 0; i < n; ++i) max = fmaxf(max, lse_of(i));
  MergedLse merged{finite_reference(max), 0.0f};
  for (int i = 0; i < n; ++i) merged.sum += expf(lse_of(i) - merged.reference);
  return merged;
}

}  // namespace flash_mla
