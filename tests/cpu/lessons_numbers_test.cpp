// What went wrong in production kernels with numbers: the base of the LSE, rows that see nothing, large logits. The
// number names the lesson.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "cpu/step.h"
#include "reference/float_format.h"

namespace flash_mla::test {
namespace {

using reference::Problem;
using reference::ProblemSpec;
using reference::Reference;
using reference::Row;
using reference::RowId;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Writes `value` into one column of every query row, or of every cached token in use.
void set_q_column(const Problem& problem, int column, double value) {
  const TensorView& q = problem.decode_args().q;
  for (std::int64_t row = 0; row < q.shape[0] * q.shape[1] * q.shape[2]; ++row) {
    const std::int64_t at = row * q.shape[3] + column;
    reference::store_element(q.dtype, static_cast<char*>(q.data) + at * size_in_bytes(q.dtype), value);
  }
}
template <class Value>
void set_token_column(const Problem& problem, int column, Value value_of_token) {
  const DecodeArgs& args = problem.decode_args();
  const TensorView& cache = args.kv_cache;
  for (std::int32_t r = 0; r < problem.batch(); ++r) {
    for (std::int32_t t = 0; t < problem.spec().lengths[static_cast<std::size_t>(r)]; ++t) {
      const std::int64_t page =
          static_cast<const std::int32_t*>(args.block_table.data)[r * args.block_table.strides[0] + t / 64];
      const std::int64_t at = page * cache.strides[0] + t % 64 * cache.strides[1] + column;
      reference::store_element(cache.dtype, static_cast<char*>(cache.data) + at * size_in_bytes(cache.dtype),
                               value_of_token(t));
    }
  }
}

// Base 2 was taken for base e. With q = 0 the LSE of a row that sees n tokens is ln n, not log2 n.
TEST(Lessons, Lessons17LseIsTheNaturalLogarithm) {
  ProblemSpec spec;
  spec.lengths = {1, 2, 64, 1000}, spec.num_parts = 6;
  Problem problem(spec);
  for (int column = 0; column < kHeadDim; ++column) set_q_column(problem, column, 0);
  problem.accept_inputs();
  ASSERT_TRUE(runs_right(problem));
  const Reference reference(problem.decode_args(), true);
  for (std::int32_t r = 0; r < 4; ++r) {
    EXPECT_NEAR(reference.result({r, 0, 3}).lse, std::log(spec.lengths[static_cast<std::size_t>(r)]), 1e-5);
  }
}

// Results of `shards` runs of pages of each request, to be merged: [shards, b * h_q, 512] and [shards, b * h_q].
struct Shards {
  std::int64_t shards, rows;
  std::vector<std::byte> out;
  std::vector<float> lse;
  std::vector<float> merged_out, merged_lse;
  MergeArgs args;

  Shards(std::int64_t shards_, std::int64_t rows_, DType dtype)
      : shards(shards_),
        rows(rows_),
        out(static_cast<std::size_t>(shards * rows * kLatentDim * size_in_bytes(dtype))),
        lse(static_cast<std::size_t>(shards * rows)),
        merged_out(static_cast<std::size_t>(rows * kLatentDim), std::nanf("")),
        merged_lse(static_cast<std::size_t>(rows), std::nanf("")) {
    args.partial_out = TensorView::contiguous(out.data(), dtype, {shards, rows, kLatentDim});
    args.partial_lse = TensorView::contiguous(lse.data(), DType::f32, {shards, rows});
    args.out = TensorView::contiguous(merged_out.data(), DType::f32, {rows, kLatentDim});
    args.lse = TensorView::contiguous(merged_lse.data(), DType::f32, {rows});
  }

  [[nodiscard]] Row merged(std::int64_t row) const {
    Row result;
    for (int c = 0; c < kLatentDim; ++c) {
      result.out[static_cast<std::size_t>(c)] = merged_out[static_cast<std::size_t>(row * kLatentDim + c)];
    }
    result.lse = merged_lse[static_cast<std::size_t>(row)];
    return result;
  }
};

// Decodes pages [first, first + pages) of each request into shard number `shard`.
void decode_shard(const Problem& problem, std::int64_t shard, std::int64_t first, std::int64_t pages, Shards* shards) {
  DecodeArgs args = problem.decode_args();
  std::vector<std::int32_t> lengths;
  for (const std::int32_t length : problem.spec().lengths) {
    lengths.push_back(static_cast<std::int32_t>(std::clamp<std::int64_t>(length - 64 * first, 0, 64 * pages)));
  }
  args.block_table.data = static_cast<std::int32_t*>(args.block_table.data) + first;
  args.block_table.shape[1] -= first;
  args.cache_seqlens = TensorView::contiguous(lengths.data(), DType::i32, {problem.batch()});
  const std::int64_t heads = problem.spec().num_heads_q;
  args.out = TensorView::contiguous(
      shards->out.data() + shard * shards->rows * kLatentDim * size_in_bytes(problem.spec().dtype),
      problem.spec().dtype, {problem.batch(), 1, heads, kLatentDim});
  args.lse = TensorView::contiguous(shards->lse.data() + shard * shards->rows, DType::f32, {problem.batch(), heads, 1});
  ScheduleArgs schedule_args = problem.schedule_args();
  schedule_args.cache_seqlens = args.cache_seqlens;
  Step step(problem.plan_config());
  ASSERT_TRUE(step.schedule(schedule_args).ok());
  ASSERT_TRUE(step.decode(args).ok());
}

// Contexts sharded over ranks merge to the unsharded result; some shards are empty for the shorter requests.
TEST(Lessons, Lessons17MergeOfShardsIsTheWhole) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const std::int64_t count : {1, 2, 3, 7}) {
      ProblemSpec spec;
      spec.dtype = dtype, spec.lengths = {700, 64, 0, 300}, spec.num_heads_q = 9;
      Problem problem(spec);
      Shards shards(count, 4 * 9, dtype);
      const std::int64_t pages = (11 + count - 1) / count;
      for (std::int64_t shard = 0; shard < count; ++shard) {
        decode_shard(problem, shard, std::min<std::int64_t>(shard * pages, 11), pages, &shards);
      }
      const Status status = merge(shards.args);
      ASSERT_TRUE(status.ok()) << status.message();
      Reference reference(problem.decode_args(), true);
      const reference::Bound bound = reference::bound_of(problem.decode_args());
      for (const RowId id : reference.all_rows()) {
        // The shards' outputs were rounded to their type, the merged one was not: the model's roundings in number.
        const auto verdict = judge_row(reference.row(id), shards.merged(id.request * 9 + id.head), bound);
        ASSERT_TRUE(verdict.ok) << count << " shards, row " << id.request << " " << id.head << ": " << verdict.message;
      }
    }
  }
}

// The LSE of an empty shard is +inf from decode and -inf from other engines; neither may poison a merge, nor may what
// stands in its out.
TEST(Lessons, Lessons18MergeSkipsEmptyShards) {
  Shards shards(3, 4, DType::f32);
  auto* out = reinterpret_cast<float*>(shards.out.data());
  for (std::size_t row = 0; row < 12; ++row) std::fill_n(out + row * kLatentDim, kLatentDim, std::nanf(""));
  std::fill_n(shards.lse.begin(), 12, kInfinity);
  const auto set = [&](std::size_t shard, std::size_t row, float lse, float value) {
    shards.lse[shard * 4 + row] = lse;
    std::fill_n(out + (shard * 4 + row) * kLatentDim, kLatentDim, value);
  };
  set(1, 0, 5, 2);                                         // row 0: one shard, others +inf
  set(0, 1, -kInfinity, std::nanf("")), set(2, 1, -7, 3);  // row 1: one shard, others -inf and +inf
  set(0, 2, 1, 1), set(1, 2, -kInfinity, 99), set(2, 2, 1 + std::log(3.0f), 5);  // row 2: weights 1/4 and 3/4
  ASSERT_TRUE(merge(shards.args).ok());                                          // row 3: nothing at all
  const Row rows[] = {shards.merged(0), shards.merged(1), shards.merged(2), shards.merged(3)};
  for (std::size_t c = 0; c < kLatentDim; ++c) {
    EXPECT_EQ(rows[0].out[c], 2);
    EXPECT_EQ(rows[1].out[c], 3);
    EXPECT_NEAR(rows[2].out[c], 0.25 * 1 + 0.75 * 5, 1e-5);
    EXPECT_EQ(rows[3].out[c], 0);
  }
  EXPECT_FLOAT_EQ(static_cast<float>(rows[0].lse), 5);
  EXPECT_FLOAT_EQ(static_cast<float>(rows[1].lse), -7);
  EXPECT_NEAR(rows[2].lse, 1 + std::log(4.0), 1e-5);
  EXPECT_EQ(rows[3].lse, kInfinity);
}

// Causal with more queries than tokens: the first queries see nothing.
TEST(Lessons, Lessons18CausalWithMoreQueriesThanTokens) {
  for (const std::int32_t length : {0, 1, 3, 6}) {
    for (const std::int32_t parts : {1, 4}) {
      ProblemSpec spec;
      spec.lengths = {length, 70}, spec.seqlen_q = 7, spec.num_heads_q = 20, spec.num_parts = parts;
      Problem problem(spec);
      ASSERT_TRUE(runs_right(problem));
      EXPECT_EQ(Reference(problem.decode_args(), true).result({0, 0, 0}).lse, kInfinity);
    }
  }
}

// Scores of 1e5 are known in fp32 to a hundredth, and weights no better: the bound, but for a slack of 2^-5.
testing::AssertionResult is_right_for_huge_scores(const Problem& problem) {
  Reference reference(problem.decode_args(), true);
  reference::Bound bound = reference::bound_of(problem.decode_args());
  bound.slack = 0x1p-5;
  for (const RowId id : reference.all_rows()) {
    const auto verdict = judge_row(reference.row(id), reference.result(id), bound);
    if (!verdict.ok) {
      return testing::AssertionFailure() << describe(problem.spec()) << ": request " << id.request << " query "
                                         << id.query << " head " << id.head << ": " << verdict.message;
    }
  }
  return testing::AssertionSuccess();
}

// A finite mask sentinel met large logits: q scaled by 1e4, with rows that see nothing and rows that see part.
TEST(Lessons, Lessons19LargeLogits) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const std::int32_t parts : {1, 5}) {
      ProblemSpec spec;
      spec.dtype = dtype, spec.lengths = {200, 3, 1, 64}, spec.seqlen_q = 4, spec.q_scale = 1e4f,
      spec.num_parts = parts;
      Problem problem(spec);
      ASSERT_TRUE(run(problem).ok());
      EXPECT_TRUE(is_right_for_huge_scores(problem));
    }
  }
}

// All logits far from 0, on either side: a masked token that counted as -5e4 would win over -1.3e5. One column decides,
// in steps of 2048, exact in every type; the winner is somewhere else in each row.
TEST(Lessons, Lessons19AllLogitsFarFromZero) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const double sign : {-1.0, 1.0}) {
      for (const std::int32_t parts : {1, 5}) {
        ProblemSpec spec;
        spec.dtype = dtype, spec.lengths = {190, 3, 1, 64}, spec.seqlen_q = 4, spec.num_parts = parts;
        spec.softmax_scale = 1;
        Problem problem(spec);
        for (int column = 0; column < kHeadDim; ++column)
          set_q_column(problem, column, column == 570 ? sign * 2048 : 0);
        set_token_column(problem, 570, [](std::int32_t t) { return 64 + (t * 37 + 90) % 191; });
        ASSERT_TRUE(run(problem).ok());
        EXPECT_TRUE(is_right_for_huge_scores(problem));
      }
    }
  }
}

}  // namespace
}  // namespace flash_mla::test
