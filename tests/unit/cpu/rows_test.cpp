// Conversions, gathering and pairing of rows, on every vector target.
#include "cpu/rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/dtype.h"
#include "flash_mla/plan.h"
#include "unit/cpu/vector_targets.h"

namespace flash_mla::test {
namespace {

bool same(float a, float b) { return std::isnan(a) ? std::isnan(b) : a == b; }

// Values on every border: ties, subnormals, overflow, infinities, NaN.
std::vector<float> hard_values() {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> values = {0,
                               -0.0f,
                               1,
                               -1,
                               65504,
                               65519.9f,
                               65520,
                               1e-8f,
                               6e-8f,
                               3e38f,
                               -3e38f,
                               kInfinity,
                               -kInfinity,
                               1.00390625f,
                               1.01171875f,
                               std::numeric_limits<float>::quiet_NaN(),
                               std::bit_cast<float>(0x7fffffffu)};
  for (int i = 0; i < 64; ++i) values.push_back(std::ldexp(1.0f + 0.0137f * static_cast<float>(i), i - 40));
  while (values.size() % 16 != 0) values.push_back(2);
  return values;
}

template <class T>
void check_scale_to(DType dtype) {
  on_every_target([&] {
    const std::vector<float> values = hard_values();
    std::vector<T> to(values.size());
    cpu::scale_to(values.data(), 0.5f, to.data(), dtype, static_cast<std::int64_t>(values.size()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      EXPECT_TRUE(same(to_float(to[i]), to_float(from_float<T>(values[i] * 0.5f)))) << values[i];
    }
  });
}

TEST(CpuRows, ScaleRoundsToNearestEven) {
  check_scale_to<float>(DType::f32);
  check_scale_to<bf16_t>(DType::bf16);
  check_scale_to<f16_t>(DType::f16);
}

template <class T>
void check_every_bit_pattern(DType dtype) {
  std::vector<T> from(65536);
  for (std::size_t i = 0; i < from.size(); ++i) from[i].bits = static_cast<std::uint16_t>(i);
  on_every_target([&] {
    std::vector<float> to(from.size(), 0);
    cpu::add_scaled(from.data(), dtype, 1, to.data(), 65536);
    for (std::size_t i = 0; i < from.size(); ++i) ASSERT_TRUE(same(to[i], to_float(from[i]))) << i;
  });
}

TEST(CpuRows, EveryBitPatternWidens) {
  check_every_bit_pattern<bf16_t>(DType::bf16);
  check_every_bit_pattern<f16_t>(DType::f16);
}

// Rows whose parts lie apart, numbered throughout.
struct Source {
  static constexpr std::int64_t kLatentStride = 640, kRopeStride = 80;
  std::vector<std::uint16_t> latent = std::vector<std::uint16_t>(16 * kLatentStride);
  std::vector<std::uint16_t> rope = std::vector<std::uint16_t>(16 * kRopeStride);

  Source() {
    std::iota(latent.begin(), latent.end(), std::uint16_t{1});
    std::iota(rope.begin(), rope.end(), std::uint16_t{20000});
  }
  [[nodiscard]] cpu::SourceRows rows(std::int64_t count) const {
    return {latent.data(), rope.data(), kLatentStride, kRopeStride, count};
  }
  [[nodiscard]] std::uint16_t at(std::int64_t row, std::int64_t column) const {
    return column < kLatentDim ? latent[row * kLatentStride + column] : rope[row * kRopeStride + column - kLatentDim];
  }
};

TEST(CpuRows, GatherJoinsTheParts) {
  const Source source;
  on_every_target([&] {
    std::vector<std::uint16_t> bf16(9 * kHeadDim);
    std::vector<float> f32(9 * kHeadDim);
    cpu::gather_rows(source.rows(9), DType::bf16, cpu::ComputeType::bf16, bf16.data());
    cpu::gather_rows(source.rows(9), DType::bf16, cpu::ComputeType::f32, f32.data());
    for (std::int64_t i = 0; i < 9 * kHeadDim; ++i) {
      const bf16_t want{source.at(i / kHeadDim, i % kHeadDim)};
      ASSERT_EQ(bf16[i], want.bits);
      ASSERT_TRUE(same(f32[i], to_float(want)));
    }
  });
}

TEST(CpuRows, PairsInterleaveTokensPanelByPanel) {
  constexpr std::int64_t kRoom = 16, kStride = kRoom * cpu::kPanelColumns;
  const Source source;
  for (const std::int64_t rows : {1, 2, 7, 16}) {
    for (const bool copy : {true, false}) {
      on_every_target([&] {
        std::vector<std::uint16_t> tokens(kRoom * kHeadDim, 0xffff), panels(kRoom * kLatentDim, 0xffff);
        cpu::gather_paired_rows(source.rows(rows), copy ? tokens.data() : nullptr, panels.data(), kStride);
        cpu::clear_pairs(panels.data(), kStride, (rows + 1) / 2, kRoom / 2);
        for (std::int64_t row = 0; row < kRoom; ++row) {
          for (std::int64_t column = 0; column < kHeadDim; ++column) {
            const std::uint16_t token = copy && row < rows ? source.at(row, column) : 0xffff;
            ASSERT_EQ(tokens[row * kHeadDim + column], token) << row << " " << column;
            if (column >= kLatentDim) continue;
            const std::int64_t at = column / 64 * kStride + row / 2 * 128 + column % 64 * 2 + row % 2;
            ASSERT_EQ(panels[at], row < rows ? source.at(row, column) : 0) << row << " " << column;
          }
        }
      });
    }
  }
}

}  // namespace
}  // namespace flash_mla::test
