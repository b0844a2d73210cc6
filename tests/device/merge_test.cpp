// The public merge on the GPU against its formula in double precision.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/dtype.h"
#include "device/gpu.h"
#include "flash_mla/flash_mla.h"

namespace flash_mla {
namespace {

using test::DeviceMemory;

constexpr Device kGpu = {DeviceType::cuda, 0};
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Shards {
  std::int64_t shards, rows;
  std::int64_t row_gap = 0;  // elements between rows of out and partial_out, a multiple of 8
  std::vector<float> out, lse;

  [[nodiscard]] std::int64_t row_stride() const { return kLatentDim + row_gap; }
  float* row(std::int64_t shard, std::int64_t r) { return &out[(shard * rows + r) * row_stride()]; }
};

Shards draw(std::mt19937& random, std::int64_t shards, std::int64_t rows, std::int64_t row_gap) {
  Shards drawn{shards, rows, row_gap, {}, {}};
  std::normal_distribution<float> normal;
  drawn.out.resize(shards * rows * drawn.row_stride());
  drawn.lse.resize(shards * rows);
  for (float& x : drawn.out) x = normal(random);
  for (float& x : drawn.lse) x = 3 * normal(random);
  return drawn;
}

// An empty shard may hold anything.
void empty(Shards& shards, std::int64_t shard, std::int64_t row, float lse) {
  shards.lse[shard * shards.rows + row] = lse;
  for (int c = 0; c < kLatentDim; ++c) shards.row(shard, row)[c] = kNan;
}

template <class Element>
std::vector<Element> rounded(const std::vector<float>& values) {
  std::vector<Element> elements(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) elements[i] = from_float<Element>(values[i]);
  return elements;
}

template <class In, class Out>
void check_merge(Shards shards, DType in, DType out, double rounding) {
  SCOPED_TRACE(::testing::Message() << shards.shards << " shards, " << shards.rows << " rows, gap " << shards.row_gap
                                    << ", " << to_string(in) << " to " << to_string(out));
  const std::vector<In> partials = rounded<In>(shards.out);
  const DeviceMemory partial_out = test::uploaded(partials), partial_lse = test::uploaded(shards.lse);
  DeviceMemory merged_out(shards.rows * shards.row_stride() * static_cast<std::int64_t>(sizeof(Out)));
  DeviceMemory merged_lse(shards.rows * 4);
  merged_out.fill(0xff), merged_lse.fill(0xff);

  MergeArgs args;
  args.partial_out = TensorView::contiguous(partial_out.data(), in, {shards.shards, shards.rows, kLatentDim}, kGpu);
  args.partial_out.strides = {shards.rows * shards.row_stride(), shards.row_stride(), 1};
  args.partial_lse = TensorView::contiguous(partial_lse.data(), DType::f32, {shards.shards, shards.rows}, kGpu);
  args.out = TensorView::contiguous(merged_out.data(), out, {shards.rows, kLatentDim}, kGpu);
  args.out.strides = {shards.row_stride(), 1};
  args.lse = TensorView::contiguous(merged_lse.data(), DType::f32, {shards.rows}, kGpu);
  const Status status = merge(args);
  ASSERT_TRUE(status.ok()) << status.message();
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  const auto got_out = test::downloaded<Out>(merged_out);
  const auto got_lse = test::downloaded<float>(merged_lse);

  for (std::int64_t r = 0; r < shards.rows; ++r) {
    double sum = 0, max = -std::numeric_limits<double>::infinity();
    bool nan = false;
    const auto lse = [&](std::int64_t s) { return shards.lse[s * shards.rows + r]; };
    const auto is_empty = [&](std::int64_t s) { return std::isinf(lse(s)); };
    for (std::int64_t s = 0; s < shards.shards; ++s) {
      nan |= std::isnan(lse(s));
      if (!is_empty(s)) max = std::max<double>(max, lse(s));
    }
    for (std::int64_t s = 0; s < shards.shards; ++s) sum += is_empty(s) ? 0 : std::exp(lse(s) - max);
    if (nan) {
      ASSERT_TRUE(std::isnan(got_lse[r])) << r;
    } else if (sum == 0) {
      ASSERT_EQ(got_lse[r], kInf) << r;
    } else {
      ASSERT_NEAR(got_lse[r], max + std::log(sum), 1e-5) << r;
    }
    for (int c = 0; c < kLatentDim; ++c) {
      double expected = 0;
      for (std::int64_t s = 0; s < shards.shards; ++s) {
        if (is_empty(s)) continue;
        const auto o = to_float(partials[(s * shards.rows + r) * shards.row_stride() + c]);
        expected += std::exp(lse(s) - max) / sum * o;
      }
      const float got = to_float(got_out[r * shards.row_stride() + c]);
      if (nan) {
        ASSERT_TRUE(std::isnan(got)) << r << " " << c;
      } else {
        ASSERT_NEAR(got, expected, 1e-5 + rounding * std::abs(expected)) << r << " " << c;
      }
    }
  }
}

TEST(MergeKernel, AgreesWithTheFormula) {
  std::mt19937 random(1);
  for (std::int64_t shards : {1, 2, 3, 7, 31, 32, 33, 64, 100}) {
    for (std::int64_t rows : {1, 3, 4, 5, 129}) {
      check_merge<float, float>(draw(random, shards, rows, 0), DType::f32, DType::f32, 1e-6);
      check_merge<bf16_t, bf16_t>(draw(random, shards, rows, 8), DType::bf16, DType::bf16, 0x1p-8);
    }
  }
  check_merge<f16_t, f16_t>(draw(random, 5, 6, 16), DType::f16, DType::f16, 0x1p-10);
  check_merge<float, bf16_t>(draw(random, 5, 6, 0), DType::f32, DType::bf16, 0x1p-8);
  check_merge<f16_t, float>(draw(random, 5, 6, 0), DType::f16, DType::f32, 1e-6);
  check_merge<bf16_t, f16_t>(draw(random, 5, 6, 0), DType::bf16, DType::f16, 0x1p-10);
}

TEST(MergeKernel, EmptyShardsAreNeutralWhateverTheyHold) {
  std::mt19937 random(2);
  for (std::int64_t count : {1, 2, 5, 40}) {
    Shards shards = draw(random, count, 6, 0);
    empty(shards, 0, 0, kInf);
    empty(shards, count - 1, 1, -kInf);
    for (std::int64_t s = 0; s < count; ++s) empty(shards, s, 2, s % 2 ? kInf : -kInf);
    for (std::int64_t s = 0; s + 1 < count; ++s) empty(shards, s, 3, kInf);
    check_merge<float, float>(shards, DType::f32, DType::f32, 1e-6);
  }
}

TEST(MergeKernel, NanStaysInItsRow) {
  std::mt19937 random(3);
  Shards shards = draw(random, 37, 5, 0);
  shards.lse[36 * 5 + 2] = kNan;
  check_merge<float, float>(shards, DType::f32, DType::f32, 1e-6);
}

}  // namespace
}  // namespace flash_mla
