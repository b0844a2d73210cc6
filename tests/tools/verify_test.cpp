// The check of sampled rows: it is an even sample, right results pass, and each kind of damage is found.
#include "replay/verify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "support/errors.h"

namespace flash_mla::tools {
namespace {

TEST(Reservoir, IsAnEvenSample) {
  constexpr std::int64_t kRows = 1000, kSize = 20, kRounds = 2000;
  std::vector<int> kept_in_tenth(10, 0);
  for (std::int64_t round = 0; round < kRounds; ++round) {
    std::vector<std::int64_t> kept(kSize, -1);
    for (Reservoir reservoir(kSize, static_cast<std::uint64_t>(round)); reservoir.next() < kRows; reservoir.advance()) {
      ASSERT_LT(reservoir.slot(), kSize);
      kept[static_cast<std::size_t>(reservoir.slot())] = reservoir.next();
    }
    for (std::int64_t row : kept) {
      ASSERT_GE(row, 0);
      ++kept_in_tenth[static_cast<std::size_t>(row * 10 / kRows)];
    }
  }
  for (int count : kept_in_tenth) EXPECT_NEAR(count, kRounds * kSize / 10, 300);  // five standard deviations
}

TEST(Reservoir, KeepsAllOfFewRowsAndNoneWhenEmpty) {
  std::vector<std::int64_t> rows;
  for (Reservoir reservoir(8, 1); reservoir.next() < 5; reservoir.advance()) {
    EXPECT_EQ(reservoir.slot(), reservoir.next());
    rows.push_back(reservoir.next());
  }
  EXPECT_EQ(rows, (std::vector<std::int64_t>{0, 1, 2, 3, 4}));
  EXPECT_GT(Reservoir(0, 1).next(), std::int64_t{1} << 60);
}

class VerifierFinds : public testing::Test {
 protected:
  // Serves 12 steps of three requests, lets `damage` at the cache before each, and checks 60 rows.
  VerifyReport serve(DType dtype, const std::function<void(PagedKvCache&, const Engine&, std::int64_t step)>& damage,
                     const std::function<void(const LayerResult&)>& tamper = {}) {
    const std::unique_ptr<DeviceContext> device = open_device("cpu");
    PagedKvCacheConfig cache_config;
    cache_config.dtype = dtype;
    cache_config.num_layers = 2;
    cache_config.num_pages = 24;
    cache_config.page_size = 16;
    PagedKvCache cache = must(PagedKvCache::create(cache_config), "create");
    const AttentionConfig config{.dtype = dtype, .heads = 3, .layers = 2, .max_batch = 4, .seed = 5};
    Attention attention(*device, config, cache);
    Verifier verifier(*device, config, 60);
    const std::vector<TraceRequest> requests = {{70, 12, 0}, {33, 12, 0}, {0, 12, 0}};
    Engine engine(requests, 4, cache);
    for (std::int64_t step = 0; !engine.done(); ++step) {
      engine.begin_step();
      if (damage) damage(cache, engine, step);
      attention.run(step, engine.running(), [&](const LayerResult& result) {
        if (tamper) tamper(result);
        verifier.collect(result);
      });
      engine.end_step();
    }
    EXPECT_EQ(attention.recordings(), 1);  // batches of up to 4 requests with up to 8 pages
    return verifier.check(attention.rows());
  }
};

TEST_F(VerifierFinds, NothingWhenAllIsRight) {
  for (DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    const VerifyReport report = serve(dtype, {});
    EXPECT_EQ(report.rows, 60);
    EXPECT_EQ(report.rows_seen, 12 * 2 * 3 * 3);
    EXPECT_EQ(report.wrong, 0) << report.worst_text;
    EXPECT_GT(report.worst, 0);
    EXPECT_LE(report.worst, 1);
    EXPECT_NE(report.worst_text.find("layer"), std::string::npos) << report.worst_text;
  }
}

TEST_F(VerifierFinds, APageThatHoldsAnothersTokens) {
  const VerifyReport report = serve(DType::bf16, [](PagedKvCache& cache, const Engine& engine, std::int64_t step) {
    if (step != 6) return;
    std::vector<std::int32_t> table(2 * 6), lengths(2);
    const RequestId ids[] = {engine.running()[0].id, engine.running()[1].id};
    must(cache.tables(ids, 6, table, lengths), "tables");
    const TensorView layer = must(cache.layer(1), "layer");
    const std::int64_t page_bytes = layer.strides[0] * size_in_bytes(layer.dtype);
    auto* pages = static_cast<std::byte*>(layer.data);
    std::swap_ranges(pages + table[1] * page_bytes, pages + (table[1] + 1) * page_bytes, pages + table[6] * page_bytes);
  });
  EXPECT_GT(report.wrong, 0);
  EXPECT_LT(report.wrong, report.rows);
  EXPECT_GT(report.worst, 1);
}

TEST_F(VerifierFinds, AWrongValueOrLse) {
  const auto tamper_out = [](const LayerResult& result) {
    auto* out = static_cast<float*>(result.out.data);
    for (std::int64_t row = 0; row < std::int64_t(result.batch.size()) * 3; ++row) out[row * kLatentDim + 7] += 0.1f;
  };
  EXPECT_EQ(serve(DType::f32, {}, tamper_out).wrong, 60);
  const auto tamper_lse = [](const LayerResult& result) {
    auto* lse = static_cast<float*>(result.lse.data);
    for (std::int64_t row = 0; row < std::int64_t(result.batch.size()) * 3; ++row) lse[row] *= 1.4426950f;  // base 2
  };
  EXPECT_GT(serve(DType::bf16, {}, tamper_lse).wrong, 50);
}

}  // namespace
}  // namespace flash_mla::tools
