// Step 5 on the CPU against the formula in double precision, on every vector target.
#include "cpu/softmax.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/dtype.h"
#include "core/online_softmax.h"
#include "unit/cpu/vector_targets.h"

namespace flash_mla::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<float> exp2_of(const std::vector<float>& x) {
  std::vector<float> result(x.size());
  cpu::exp2_values(x.data(), result.data(), static_cast<int>(x.size()));
  return result;
}

TEST(CpuExp2, RelativeErrorIsBelowItsBound) {
  std::vector<float> x;
  for (double v = -126; v <= 126; v += 0.00731) x.push_back(static_cast<float>(v));
  on_every_target([&] {
    const std::vector<float> result = exp2_of(x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double exact = std::exp2(static_cast<double>(x[i]));
      ASSERT_LE(std::abs(result[i] - exact), 2e-7 * exact) << x[i];
    }
  });
}

TEST(CpuExp2, EndsOfTheRange) {
  on_every_target([] {
    const std::vector<float> result = exp2_of({0, -126.5f, -1e30f, kNegativeInfinity, kNaN});
    EXPECT_EQ(result[0], 1);
    EXPECT_EQ(result[1], 0);
    EXPECT_EQ(result[2], 0);
    EXPECT_EQ(result[3], 0);
    EXPECT_TRUE(std::isnan(result[4]));
  });
}

// A tile's state over a few chunks of random scores.
struct Tile {
  static constexpr int kRows = 48, kTokens = 64;
  std::vector<float> max = std::vector<float>(kRows, kNegativeInfinity);
  std::vector<float> sum = std::vector<float>(kRows, 0), factor = std::vector<float>(kRows, kNaN);
  std::vector<float> scores = std::vector<float>(kRows * kTokens), weights = std::vector<float>(kRows * kTokens);
  std::vector<std::int32_t> visible = std::vector<std::int32_t>(kRows, kTokens);
  float scale = 0.4f;

  void draw(std::mt19937& random) {
    std::normal_distribution<float> normal(0, 5);
    for (float& s : scores) s = normal(random);
  }
  bool run() {
    std::fill(weights.begin(), weights.end(), kNaN);
    return cpu::softmax({scores.data(), weights.data(), visible.data(), kRows, kTokens, scale}, cpu::ComputeType::f32,
                        {max.data(), sum.data(), factor.data()});
  }
  [[nodiscard]] float score(int token, int row) const { return scores[token * kRows + row]; }
  [[nodiscard]] float weight(int token, int row) const { return weights[token * kRows + row]; }
};

TEST(CpuSoftmax, ChunksAddUpToTheWholeRow) {
  on_every_target([] {
    std::mt19937 random(3);
    Tile tile;
    std::vector<double> exact_sum(Tile::kRows, 0), kept(Tile::kRows, 0);
    std::vector<double> exact_max(Tile::kRows, -1e300);
    for (int chunk = 0; chunk < 3; ++chunk) {
      tile.draw(random);
      for (int row = 0; row < Tile::kRows; ++row) tile.visible[row] = chunk == 2 ? row : Tile::kTokens;
      tile.run();
      for (int row = 0; row < Tile::kRows; ++row) {
        kept[row] *= tile.factor[row];
        for (int t = 0; t < Tile::kTokens; ++t) {
          if (t >= tile.visible[row]) {
            ASSERT_EQ(tile.weight(t, row), 0) << t << " " << row;
            continue;
          }
          kept[row] += tile.weight(t, row);
          const double z = static_cast<double>(tile.score(t, row)) * tile.scale;
          exact_sum[row] += std::exp2(z);
          exact_max[row] = std::max(exact_max[row], z);
        }
      }
    }
    for (int row = 0; row < Tile::kRows; ++row) {
      const double exact = exact_sum[row] / std::exp2(exact_max[row]);
      EXPECT_NEAR(tile.max[row], exact_max[row], 1e-5);
      EXPECT_NEAR(tile.sum[row], exact, 1e-5 * exact);
      EXPECT_NEAR(kept[row], exact, 1e-5 * exact);
    }
  });
}

TEST(CpuSoftmax, SaysWhenNothingWasRescaled) {
  on_every_target([] {
    std::mt19937 random(4);
    Tile tile;
    tile.draw(random);
    EXPECT_TRUE(tile.run());
    EXPECT_FALSE(tile.run());  // the same scores again: the maximum stands
    EXPECT_EQ(std::count(tile.factor.begin(), tile.factor.end(), 1.0f), Tile::kRows);
  });
}

// NaN in one row, none seen in another, -inf and +inf: each stays in its row.
TEST(CpuSoftmax, StrangeScoresStayInTheirRows) {
  on_every_target([] {
    std::mt19937 random(5);
    Tile tile;
    tile.draw(random);
    const auto fill_row = [&](int row, float value) {
      for (int t = 0; t < Tile::kTokens; ++t) tile.scores[t * Tile::kRows + row] = value;
    };
    tile.scores[7 * Tile::kRows + 2] = kNaN;
    fill_row(3, kNegativeInfinity);
    tile.scores[9 * Tile::kRows + 4] = kPositiveInfinity;
    fill_row(5, kNaN), tile.visible[5] = 0;
    tile.run();
    EXPECT_TRUE(std::isnan(tile.sum[2]));
    EXPECT_EQ(tile.sum[3], 0);
    EXPECT_TRUE(std::isnan(tile.sum[4]));
    EXPECT_EQ(tile.sum[5], 0);
    for (int t = 0; t < Tile::kTokens; ++t) EXPECT_EQ(tile.weight(t, 5), 0);
    for (int row = 6; row < Tile::kRows; ++row) EXPECT_TRUE(tile.sum[row] >= 1) << row;
  });
}

TEST(CpuSoftmax, WeightsInBf16AreTheRoundedOnes) {
  on_every_target([] {
    std::mt19937 random(6);
    Tile tile, rounded;
    tile.draw(random);
    rounded.scores = tile.scores;
    tile.run();
    std::vector<bf16_t> weights(tile.weights.size());
    cpu::softmax(
        {rounded.scores.data(), weights.data(), rounded.visible.data(), Tile::kRows, Tile::kTokens, tile.scale},
        cpu::ComputeType::bf16, {rounded.max.data(), rounded.sum.data(), rounded.factor.data()});
    for (std::size_t i = 0; i < weights.size(); ++i) {
      ASSERT_EQ(weights[i].bits, from_float<bf16_t>(tile.weights[i]).bits) << tile.weights[i];
    }
  });
}

}  // namespace
}  // namespace flash_mla::test
