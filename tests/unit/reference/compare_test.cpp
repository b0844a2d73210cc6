// The comparison accepts what is right and refuses what is a little wrong, and says which row.
#include "reference/compare.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "reference/float_format.h"
#include "reference/problem.h"

namespace flash_mla::reference {
namespace {

ProblemSpec small_spec() {
  ProblemSpec spec;
  spec.lengths = {70, 0, 5};
  spec.seqlen_q = 2, spec.num_heads_q = 4, spec.num_heads_kv = 2;
  return spec;
}

char* result(const TensorView& view, std::int64_t i, std::int64_t j, std::int64_t k, std::int64_t l = 0) {
  std::int64_t offset = i * view.strides[0] + j * view.strides[1] + k * view.strides[2];
  if (view.rank == 4) offset += l * view.strides[3];
  return static_cast<char*>(view.data) + offset * size_in_bytes(view.dtype);
}

// Writes the rounding model's own rows: the best that a kernel can do.
void write_model(const Problem& problem) {
  const DecodeArgs& args = problem.decode_args();
  Reference reference(args, problem.spec().causal);
  for (const RowId id : reference.all_rows()) {
    const ReferenceRow row = reference.row(id);
    for (int c = 0; c < kLatentDim; ++c) {
      store_element(args.out.dtype, result(args.out, id.request, id.query, id.head, c),
                    row.model.out[static_cast<std::size_t>(c)]);
    }
    store_element(DType::f32, result(args.lse, id.request, id.head, id.query), row.model.lse);
  }
}

class CompareTest : public testing::Test {
 protected:
  CompareTest() : problem(small_spec()) { write_model(problem); }
  Comparison run() { return compare(args(), true); }
  const DecodeArgs& args() { return problem.decode_args(); }
  double load_out(int r, int j, int h, int c) { return load_element(DType::bf16, result(args().out, r, j, h, c)); }
  void store_out(int r, int j, int h, int c, double value) {
    store_element(DType::bf16, result(args().out, r, j, h, c), value);
  }
  void store_lse(int r, int h, int j, double value) { store_element(DType::f32, result(args().lse, r, h, j), value); }

  Problem problem;
};

TEST_F(CompareTest, AcceptsTheModel) {
  const Comparison comparison = run();
  EXPECT_TRUE(comparison.ok) << comparison.message;
  EXPECT_EQ(comparison.rows, 3 * 2 * 4);
  EXPECT_EQ(comparison.wrong_rows, 0);
  EXPECT_GT(comparison.used, 0.2);
  EXPECT_LE(comparison.used, 1 / 1.5);
}

TEST_F(CompareTest, FindsOneWrongElement) {
  store_out(0, 1, 3, 77, load_out(0, 1, 3, 77) + 0.25);
  const Comparison comparison = run();
  EXPECT_FALSE(comparison.ok);
  EXPECT_EQ(comparison.wrong_rows, 1);
  EXPECT_EQ(comparison.worst, (RowId{0, 1, 3}));
  EXPECT_NE(comparison.message.find("request 0, query 1, head 3"), std::string::npos) << comparison.message;
  EXPECT_NE(comparison.message.find("out[77]"), std::string::npos) << comparison.message;
}

// 1.5 % too large: hardly more than bf16's grain for one element, but not for a row.
TEST_F(CompareTest, FindsASmallBias) {
  for (int c = 0; c < kLatentDim; ++c) store_out(2, 0, 0, c, 1.015 * load_out(2, 0, 0, c));
  EXPECT_FALSE(run().ok);
}

TEST_F(CompareTest, FindsAnUnwrittenElement) {
  store_out(2, 1, 0, 511, std::numeric_limits<double>::quiet_NaN());
  EXPECT_FALSE(run().ok);
  EXPECT_EQ(count_nan(args().out), 1);
}

TEST_F(CompareTest, FindsAWrongEmptyRow) {
  store_out(1, 0, 0, 3, 1e-30);
  EXPECT_FALSE(run().ok);
  store_out(1, 0, 0, 3, -0.0);
  EXPECT_TRUE(run().ok);
  store_lse(1, 0, 0, -std::numeric_limits<double>::infinity());
  EXPECT_FALSE(run().ok);
}

TEST_F(CompareTest, FindsAnLseInBase2) {
  Reference reference(args(), true);
  store_lse(0, 2, 0, reference.row({0, 0, 2}).exact.lse / std::log(2.0));
  const Comparison comparison = run();
  EXPECT_FALSE(comparison.ok);
  EXPECT_NE(comparison.message.find("lse"), std::string::npos) << comparison.message;
}

TEST_F(CompareTest, LseBoundIsNarrow) {
  const double lse = Reference(args(), true).row({0, 0, 0}).exact.lse;
  store_lse(0, 0, 0, lse + 0.9 * (1e-5 + 3e-5 * lse));
  EXPECT_TRUE(run().ok);
  store_lse(0, 0, 0, lse + 1.2 * (1e-5 + 3e-5 * lse));
  EXPECT_FALSE(run().ok);
}

TEST_F(CompareTest, SamplesInOrderWithoutRepetition) {
  const auto rows = sample_rows(args(), true, 7, 5);
  ASSERT_EQ(rows.size(), 7u);
  const auto all = sample_rows(args(), true, INT64_MAX, 5);
  EXPECT_EQ(all.size(), 24u);
  auto at = all.begin();
  for (const RowId& row : rows) {
    at = std::find(at, all.end(), row);
    ASSERT_NE(at, all.end());
    ++at;
  }
}

}  // namespace
}  // namespace flash_mla::reference
