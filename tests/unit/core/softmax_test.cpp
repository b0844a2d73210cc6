// OnlineSoftmax and the merge algebra against a two-pass softmax in fp64.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/online_softmax.h"
#include "core/partial.h"

namespace flash_mla {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct RowResult {
  double out = 0, lse = -std::numeric_limits<double>::infinity();
};

// Token t has score scores[t] and the one-column value values[t].
RowResult expected(const std::vector<float>& scores, const std::vector<float>& values) {
  double max = -std::numeric_limits<double>::infinity(), sum = 0, out = 0;
  for (float s : scores) max = std::max<double>(max, s);
  if (std::isinf(max)) return {};
  for (std::size_t t = 0; t < scores.size(); ++t) {
    sum += std::exp(scores[t] - max), out += std::exp(scores[t] - max) * values[t];
  }
  return {out / sum, max + std::log(sum)};
}

struct Partial {
  float out = 0, lse = kNegativeInfinity;
};

Partial run_online(const std::vector<float>& scores, const std::vector<float>& values, std::size_t begin,
                   std::size_t end, std::size_t piece) {
  OnlineSoftmax row;
  float out = 0;
  for (std::size_t at = begin; at < end; at += piece) {
    const std::size_t stop = std::min(end, at + piece);
    float max = kNegativeInfinity;
    for (std::size_t t = at; t < stop; ++t) max = std::fmax(max, scores[t] * kLog2e);
    out *= row.raise(max);
    for (std::size_t t = at; t < stop; ++t) {
      const float p = row.weight(scores[t] * kLog2e);
      row.sum += p;
      if (p != 0) out += p * values[t];
    }
  }
  return {out * row.normaliser(), row.lse()};
}

Partial run_merge(const std::vector<Partial>& partials) {
  const auto n = static_cast<int>(partials.size());
  const MergedLse merged = merge_lse(n, [&](int i) { return partials[i].lse; });
  Partial result{0, merged.lse()};
  for (const Partial& partial : partials) {
    if (const float factor = merged.factor(partial.lse); factor != 0) result.out += factor * partial.out;
  }
  return result;
}

std::vector<float> random_values(std::mt19937& random, std::size_t n, float scale) {
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = scale * normal(random);
  return values;
}

TEST(OnlineSoftmax, EqualsTwoPassSoftmaxForAnyPieces) {
  std::mt19937 random(1);
  for (float scale : {0.1f, 1.0f, 30.0f, 1e4f}) {
    const auto scores = random_values(random, 300, scale), values = random_values(random, 300, 1);
    const RowResult want = expected(scores, values);
    for (std::size_t piece : {1, 7, 64, 300}) {
      const Partial got = run_online(scores, values, 0, 300, piece);
      // z = score * log2(e) is rounded once: an error of |score| * 2^-23 or so in the exponent.
      EXPECT_NEAR(got.out, want.out, 1e-5 + 4e-7 * scale) << scale << " " << piece;
      EXPECT_NEAR(got.lse, want.lse, 1e-5 + 1e-6 * std::abs(want.lse)) << scale << " " << piece;
    }
  }
}

TEST(OnlineSoftmax, MaskedScoresWeighNothing) {
  const float inf = kPositiveInfinity;
  const std::vector<float> scores = {-inf, -inf, 2, -inf, 3, -inf}, values = {1e30f, 1, 5, 1, 7, 1};
  const RowResult want = expected({2, 3}, {5, 7});
  for (std::size_t piece : {1, 2, 3, 6}) {
    const Partial got = run_online(scores, values, 0, scores.size(), piece);
    EXPECT_NEAR(got.out, want.out, 1e-6);
    EXPECT_NEAR(got.lse, want.lse, 1e-6);
  }
}

TEST(OnlineSoftmax, ARowWithoutTokensIsEmptyNeverNan) {
  for (const std::vector<float>& scores : {std::vector<float>{}, std::vector<float>(5, kNegativeInfinity)}) {
    const Partial got = run_online(scores, std::vector<float>(scores.size(), 1.0f), 0, scores.size(), 2);
    EXPECT_EQ(got.out, 0);
    EXPECT_EQ(got.lse, kNegativeInfinity);
  }
}

TEST(OnlineSoftmax, AllLogitsVeryNegativeStayExact) {
  const Partial got = run_online({-1e5f, -1e5f, -3e38f}, {1, 3, 100}, 0, 3, 1);
  EXPECT_FLOAT_EQ(got.out, 2);
  EXPECT_FLOAT_EQ(got.lse, -1e5f + std::log(2.0f));
}

TEST(OnlineSoftmax, NanPropagatesFromAnyPosition) {
  for (std::size_t at = 0; at < 6; ++at) {
    std::vector<float> scores = {1, 2, 3, 4, kNegativeInfinity, 6};
    scores[at] = kNan;
    for (std::size_t piece : {1, 2, 6}) {
      const Partial got = run_online(scores, {1, 1, 1, 1, 1, 1}, 0, 6, piece);
      EXPECT_TRUE(std::isnan(got.out)) << at << " " << piece;
      EXPECT_TRUE(std::isnan(got.lse)) << at << " " << piece;
    }
  }
}

TEST(Partial, MergedShardsEqualTheWhole) {
  std::mt19937 random(2);
  const auto scores = random_values(random, 500, 3), values = random_values(random, 500, 1);
  const Partial whole = run_online(scores, values, 0, 500, 64);
  for (std::size_t shards : {1, 2, 3, 7, 100}) {
    std::vector<Partial> partials;
    for (std::size_t i = 0; i < shards; ++i) {
      partials.push_back(run_online(scores, values, 500 * i / shards, 500 * (i + 1) / shards, 64));
    }
    const Partial got = run_merge(partials);
    EXPECT_NEAR(got.out, whole.out, 1e-6) << shards;
    EXPECT_NEAR(got.lse, whole.lse, 1e-5) << shards;
  }
}

TEST(Partial, EmptyShardsAreNeutralWhateverTheyHold) {
  const Partial empty{kNan, kNegativeInfinity}, some{2, 1};
  for (const auto& partials : {std::vector{empty, some}, {some, empty}, {empty, some, empty}}) {
    EXPECT_EQ(run_merge(partials).out, 2);
    EXPECT_EQ(run_merge(partials).lse, 1);
  }
  EXPECT_EQ(run_merge({empty, empty}).out, 0);
  EXPECT_EQ(run_merge({empty, empty}).lse, kNegativeInfinity);
  EXPECT_EQ(run_merge({}).lse, kNegativeInfinity);
}

TEST(Partial, NanInOneShardMakesTheRowNan) {
  for (const auto& partials : {std::vector<Partial>{{1, kNan}, {2, 1}},
                               {{2, 1}, {1, kNan}},
                               {{0, kNegativeInfinity}, {1, kNan}},
                               {{1, kNan}, {0, kNegativeInfinity}}}) {
    EXPECT_TRUE(std::isnan(run_merge(partials).out));
    EXPECT_TRUE(std::isnan(run_merge(partials).lse));
  }
}

TEST(Partial, LargeLseDoesNotOverflow) {
  const Partial got = run_merge({{1, 1e5f}, {3, 1e5f}, {100, -1e5f}});
  EXPECT_FLOAT_EQ(got.out, 2);
  EXPECT_FLOAT_EQ(got.lse, 1e5f + std::log(2.0f));
}

TEST(Partial, EmptyRowsChangeSignAtTheApiOnly) {
  EXPECT_EQ(lse_for_api(kNegativeInfinity), kPositiveInfinity);
  EXPECT_EQ(lse_for_api(1.5f), 1.5f);
  EXPECT_TRUE(std::isnan(lse_for_api(kNan)));
  EXPECT_EQ(lse_from_api(kPositiveInfinity), kNegativeInfinity);
  EXPECT_EQ(lse_from_api(kNegativeInfinity), kNegativeInfinity);
  EXPECT_EQ(lse_from_api(-2.0f), -2.0f);
}

}  // namespace
}  // namespace flash_mla
