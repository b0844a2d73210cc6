// Sums, the page with pictures, and numbers for people.
#include "replay/report.h"

#include <gtest/gtest.h>

#include "replay/chart.h"
#include "support/human.h"

namespace flash_mla::tools {
namespace {

ReplayResult two_steps() {
  ReplayResult result;
  result.trace_source = "a <trace> & more";
  result.backend = "cpu", result.device_name = "a processor";
  result.heads = 128, result.layers = 2, result.num_pages = 10, result.page_size = 64, result.max_batch = 4;
  result.num_parts = 2;
  result.stopped_by = "stopped after 2 steps";
  result.counts.requests = 5, result.counts.entered = 2, result.counts.running = 2, result.counts.waiting = 3;
  result.counts.generated_tokens = 3;
  StepRecord step;
  step.end_seconds = 1;
  step.times = {.write_seconds = 0.1, .schedule_seconds = 0.01, .attention_seconds = 0.5};
  step.batch = 1, step.tokens = 100, step.longest_tokens = 100, step.pages_in_use = 2;
  step.internal_fragmentation = 1 - 100 / 128.0;
  result.steps.push_back(step);
  step.end_seconds = 2;
  step.times.attention_seconds = 0.7;
  step.batch = 2, step.tokens = 301, step.longest_tokens = 200, step.pages_in_use = 6, step.preemptions = 1;
  result.steps.push_back(step);
  return result;
}

TEST(Summary, AddsUpSteps) {
  const ReplaySummary sum = summarize(two_steps());
  const double latent = 2 * 2 * 576, per_head = 2 * 2 * 128 * (192 + 128);  // bytes of a token in two layers
  EXPECT_DOUBLE_EQ(sum.wall_seconds, 2);
  EXPECT_DOUBLE_EQ(sum.attention_seconds, 1.2);
  EXPECT_NEAR(sum.other_seconds, 2 - 1.2 - 0.2 - 0.02, 1e-12);
  EXPECT_DOUBLE_EQ(sum.tokens_per_second, 1.5);
  EXPECT_DOUBLE_EQ(sum.attention_p99, 0.7);
  EXPECT_DOUBLE_EQ(sum.mean_batch, 1.5);
  EXPECT_DOUBLE_EQ(sum.pool_use, 0.4);
  EXPECT_DOUBLE_EQ(sum.paged_latent.peak_bytes, 6 * 64 * latent);
  EXPECT_DOUBLE_EQ(sum.paged_latent.mean_bytes, 4 * 64 * latent);
  EXPECT_DOUBLE_EQ(sum.paged_latent.read_bytes_per_step, 401 / 2.0 * latent);
  EXPECT_DOUBLE_EQ(sum.paged_latent.flop_per_step, 401 / 2.0 * 2 * 2 * 128 * 1088);
  EXPECT_DOUBLE_EQ(sum.padded_latent.peak_bytes, 400 * latent);
  EXPECT_DOUBLE_EQ(sum.padded_latent.flop_per_step, 500 / 2.0 * 2 * 2 * 128 * 1088);
  EXPECT_DOUBLE_EQ(sum.per_head.read_bytes_per_step, 401 / 2.0 * per_head);
  EXPECT_DOUBLE_EQ(sum.per_head.flop_per_step, 401 / 2.0 * 2 * 2 * 128 * 320);
  EXPECT_NEAR(sum.flop_rate, 401.0 * 2 * 2 * 128 * 1088 / 1.2, 1);
  EXPECT_NEAR(sum.byte_rate, (401 * latent + 3 * 128.0 * 1088 * 2 * 2) / 1.2, 1);
}

TEST(Summary, ARunWithoutStepsIsNoDivisionByZero) {
  ReplayResult result;
  result.heads = 1, result.layers = 1, result.num_pages = 1, result.page_size = 64;
  const ReplaySummary sum = summarize(result);
  EXPECT_EQ(sum.tokens_per_second, 0);
  EXPECT_TRUE(bucketed(result, 10).empty());
  for (const std::string& text :
       {text_report(result, sum), html_report(result, sum), json_report(result, sum).dump()}) {
    EXPECT_EQ(text.find("nan"), std::string::npos) << text;
  }
}

TEST(Buckets, KeepEveryStep) {
  ReplayResult result = two_steps();
  for (int i = 0; i < 1000; ++i) result.steps.push_back({.end_seconds = 2 + 0.01 * i, .batch = 1});
  std::int64_t steps = 0, preemptions = 0;
  for (const Bucket& bucket : bucketed(result, 7)) steps += bucket.steps, preemptions += bucket.preemptions;
  EXPECT_EQ(steps, 1002);
  EXPECT_EQ(preemptions, 1);
  EXPECT_LE(bucketed(result, 7).size(), 7u);
  EXPECT_DOUBLE_EQ(bucketed(two_steps(), 2)[1].padded_pages, 2 * 4);
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

TEST(Page, StandsAloneWithItsPictures) {
  const ReplayResult result = two_steps();
  const std::string page = html_report(result, summarize(result));
  EXPECT_EQ(count(page, "<svg"), 4u);
  EXPECT_EQ(count(page, "</svg>"), 4u);
  EXPECT_EQ(count(page, "<polyline"), 4u);
  EXPECT_NE(page.find("a &lt;trace&gt; &amp; more"), std::string::npos);
  for (const char* outside : {"http://", "https://", "src=", "href=", "<script", "nan", "inf,"}) {
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  }
}

TEST(Report, SaysWhenARowIsWrong) {
  ReplayResult result = two_steps();
  const ReplaySummary sum = summarize(result);
  EXPECT_EQ(json_report(result, sum).count("verify"), 0u);
  result.verify = VerifyReport{200, 5000, 0, 0.4, "fine"};
  EXPECT_NE(text_report(result, sum).find("agree with the fp64 reference"), std::string::npos);
  result.verify = VerifyReport{200, 5000, 1, 3.5, "step 7"};
  EXPECT_NE(text_report(result, sum).find("WRONG"), std::string::npos);
  EXPECT_NE(html_report(result, sum).find("class=\"bad\""), std::string::npos);
  EXPECT_EQ(json_report(result, sum)["verify"]["wrong"], 1);
}

TEST(Chart, SurvivesEmptyAndFlatData) {
  Chart chart{.label = "empty"};
  EXPECT_EQ(count(svg_line_chart(chart), "<svg"), 1u);
  chart.x = {0, 0};
  chart.series = {{.name = "zero", .values = {0, 0}}};
  EXPECT_EQ(svg_line_chart(chart).find("nan"), std::string::npos);
  EXPECT_EQ(svg_bar_chart("bars", {{.name = "zero"}}).find("nan"), std::string::npos);
}

TEST(Human, NumbersHaveThreeDigitsAndUnits) {
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(1536), "1.50 KiB");
  EXPECT_EQ(human_bytes(75.5e6), "72.0 MiB");
  EXPECT_EQ(human_bytes(1024.0 * 1024 * 1024 - 1), "1.00 GiB");
  EXPECT_EQ(human_seconds(0), "0 s");
  EXPECT_EQ(human_seconds(0.00000123), "1.23 us");
  EXPECT_EQ(human_seconds(0.0123), "12.3 ms");
  EXPECT_EQ(human_seconds(60), "60.0 s");
  EXPECT_EQ(human_seconds(125), "2 min 05 s");
  EXPECT_EQ(human_seconds(3725), "1 h 02 min");
  EXPECT_EQ(human_flop_rate(4.12e11), "412 GFLOPS");
  EXPECT_EQ(human_byte_rate(38.1e9), "38.1 GB/s");
  EXPECT_EQ(human_count(std::int64_t{1234567}), "1,234,567");
  EXPECT_EQ(human_count(std::int64_t{-123456}), "-123,456");
  EXPECT_EQ(human_count(std::int64_t{999}), "999");
  EXPECT_EQ(human_count(12.34), "12.3");
  EXPECT_EQ(human_percent(0.1234), "12.3 %");
}

TEST(Human, PercentilesAreNearestRank) {
  EXPECT_EQ(percentile({}, 0.5), 0);
  EXPECT_EQ(percentile({3, 1, 2}, 0.5), 2);
  EXPECT_EQ(percentile({3, 1, 2}, 0), 1);
  EXPECT_EQ(percentile({3, 1, 2}, 1), 3);
}

}  // namespace
}  // namespace flash_mla::tools
