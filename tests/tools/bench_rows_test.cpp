// Rows of the bench: what a file may say, and what it must not.
#include <gtest/gtest.h>

#include <sstream>

#include "bench/bench.h"
#include "bench/rows.h"
#include "support/errors.h"

namespace flash_mla::tools {
namespace {

std::vector<BenchRow> parse(const std::string& text) {
  std::istringstream input(text);
  return parse_bench_rows(input, "rows.json", 1);
}

TEST(BenchRows, ReadsTheKeysOfAMeasurement) {
  const auto rows = parse(R"({"device": "x", "rows": [
      {"b": 3, "s_q": 2, "h": 16, "s_k": 100, "lens": "uniform", "regime": "latency", "flop": 1.5, "us": 3},
      {"b": 2, "s_q": 1, "h": 128, "s_k": 0, "lens": "conv", "seqlens": [7, 0]}]})");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].seqlens, (std::vector<std::int32_t>{100, 100, 100}));
  EXPECT_EQ(rows[0].regime, "latency");
  EXPECT_DOUBLE_EQ(rows[0].flop(), 2.0 * 2 * 16 * 300 * 1088);
  EXPECT_DOUBLE_EQ(rows[0].bytes(2), 1152.0 * 300 + 2.0 * 3 * 2 * 16 * 1088);
  EXPECT_EQ(rows[1].seqlens, (std::vector<std::int32_t>{7, 0}));
}

TEST(BenchRows, DrawsLengthsThatWereNotGiven) {
  const auto rows =
      parse(R"([{"b": 500, "s_q": 4, "h": 1, "s_k": 1000, "lens": "normal"}, {"b": 500, "h": 1, "lens": "conv"}])");
  EXPECT_NEAR(rows[0].total_tokens() / 500, 1000, 100);
  for (std::int32_t length : rows[0].seqlens) EXPECT_GE(length, 4);
  EXPECT_NEAR(rows[1].total_tokens() / 500, 1260, 200);
}

TEST(BenchRows, ErrorsNameTheRowAndTheKey) {
  struct Case {
    const char* text;
    const char* error;
  };
  const Case cases[] = {
      {"{", "no valid JSON"},
      {"{}", "holds no array"},
      {"[]", "holds no array"},
      {"[7]", "row 1: the row is 7"},
      {R"([{"b": 1, "h": 1, "s_k": 1}, {"h": 1}])", "row 2: b is missing"},
      {R"([{"b": "many", "h": 1}])", "row 1: b is \"many\""},
      {R"([{"b": 1.5, "h": 1}])", "row 1: b is 1.5"},
      {R"([{"b": 0, "h": 1}])", "row 1: b is 0; it must be 1 to"},
      {R"([{"b": 1, "h": -4}])", "row 1: h is -4"},
      {R"([{"b": 18446744073709551615, "h": 1}])", "row 1: b is 18446744073709551615"},
      {R"([{"b": 2, "h": 1, "seqlens": [1, 2, 3]}])", "row 1: seqlens has 3 entries and b is 2"},
      {R"([{"b": 2, "h": 1, "seqlens": [1, -2]}])", "row 1: an entry of seqlens is -2"},
      {R"([{"b": 2, "h": 1, "seqlens": 3}])", "row 1: seqlens is 3"},
      {R"([{"b": 2, "h": 1, "lens": "long"}])", "row 1: lens is \"long\""},
      {R"([{"b": 2, "h": 1, "causal": 1}])", "row 1: causal is 1"},
  };
  for (const Case& c : cases) {
    try {
      parse(c.text);
      ADD_FAILURE() << c.text;
    } catch (const InputError& error) {
      EXPECT_NE(std::string(error.what()).find(c.error), std::string::npos) << c.text << ": " << error.what();
    }
  }
}

TEST(BenchRows, FlagsAreCombined) {
  BenchOptions options;
  options.batch = {1, 2}, options.heads = {16, 128}, options.seqlen_q = {1, 2}, options.seqlen_k = {64, 128, 256};
  EXPECT_EQ(bench_rows(options).size(), 24u);
  options.seqlens = {5, 6, 7};
  const auto rows = bench_rows(options);
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0].b, 3);
  EXPECT_EQ(rows[0].seqlens, (std::vector<std::int32_t>{5, 6, 7}));
}

}  // namespace
}  // namespace flash_mla::tools
