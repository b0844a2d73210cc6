// What went wrong in production kernels with numbers, on the GPU: the base of the LSE, rows that see nothing, large
// logits, NaN, windows of several query tokens. The number names the lesson.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "device/device_problem.h"
#include "device/device_reference.h"
#include "device/device_step.h"
#include "reference/float_format.h"

namespace flash_mla::test {
namespace {

using reference::Problem;
using reference::ProblemSpec;
using reference::Row;
using reference::RowId;

constexpr std::int64_t kAllRows = INT64_MAX;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr DType kTypes[] = {DType::bf16, DType::f16};

void store(const TensorView& view, std::int64_t offset, double value) {
  reference::store_element(view.dtype, static_cast<char*>(view.data) + offset * size_in_bytes(view.dtype), value);
}

// Where token t of a request lies in the cache on the host, kv head 0.
std::int64_t token_offset(const Problem& problem, std::int32_t request, std::int32_t t) {
  const DecodeArgs& args = problem.decode_args();
  const std::int64_t page_size = args.kv_cache.shape[1];
  const std::int64_t page =
      static_cast<const std::int32_t*>(args.block_table.data)[request * args.block_table.strides[0] + t / page_size];
  return page * args.kv_cache.strides[0] + t % page_size * args.kv_cache.strides[1];
}

// Base 2 was taken for base e. With q = 0 the LSE of a row that sees n tokens is ln n, not log2 n.
TEST(DeviceLessons, Lessons17LseIsTheNaturalLogarithm) {
  for (const std::int32_t parts : {0, 1, 6}) {
    ProblemSpec spec;
    spec.lengths = {1, 2, 64, 1000}, spec.num_parts = parts, spec.q_scale = 0;
    DeviceProblem problem(spec);
    ASSERT_TRUE(problem.runs_right(kAllRows));
    const std::vector<RowId> rows = problem.rows();
    const std::vector<Row> got = reference::results_on_device(problem.args(), rows);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      EXPECT_NEAR(got[i].lse, std::log(spec.lengths[static_cast<std::size_t>(rows[i].request)]), 1e-5);
    }
  }
}

// Contexts sharded over ranks merge to the unsharded result; some shards are empty for the shorter requests.
TEST(DeviceLessons, Lessons17MergeOfShardsIsTheWhole) {
  constexpr std::int32_t kHeads = 9, kPages = 11;
  for (const DType dtype : kTypes) {
    for (const std::int32_t count : {1, 2, 3, 7}) {
      ProblemSpec spec;
      spec.dtype = dtype, spec.lengths = {700, 64, 0, 300}, spec.num_heads_q = kHeads;
      DeviceProblem problem(spec);
      const std::vector<RowId> ids = problem.rows();
      problem.synchronize();
      const auto want = reference::rows_on_device(problem.args(), true, ids);

      const std::int64_t rows = 4 * kHeads;
      const DeviceMemory out(count * rows * kLatentDim * 2), lse(count * rows * 4);
      const std::int32_t pages = (kPages + count - 1) / count;
      const DecodeArgs whole = problem.args();
      for (std::int32_t shard = 0; shard < count; ++shard) {
        const std::int32_t first = std::min(shard * pages, kPages);
        Lengths lengths;
        for (const std::int32_t length : spec.lengths)
          lengths.push_back(std::clamp(length - 64 * first, 0, 64 * pages));
        problem.set_lengths(lengths);
        DecodeArgs& args = problem.args();
        args = whole;
        args.block_table.data = static_cast<std::int32_t*>(whole.block_table.data) + first;
        args.block_table.shape[1] -= first;
        args.out = TensorView::contiguous(static_cast<char*>(out.data()) + shard * rows * kLatentDim * 2, dtype,
                                          {4, 1, kHeads, kLatentDim}, whole.out.device);
        args.lse = TensorView::contiguous(static_cast<float*>(lse.data()) + shard * rows, DType::f32, {4, kHeads, 1},
                                          whole.out.device);
        problem.schedule();
        problem.decode();
      }
      problem.args() = whole;
      problem.clear_results();
      MergeArgs merge_args;
      merge_args.partial_out = TensorView::contiguous(out.data(), dtype, {count, rows, kLatentDim}, whole.out.device);
      merge_args.partial_lse = TensorView::contiguous(lse.data(), DType::f32, {count, rows}, whole.out.device);
      merge_args.out = TensorView::contiguous(whole.out.data, dtype, {rows, kLatentDim}, whole.out.device);
      merge_args.lse = TensorView::contiguous(whole.lse.data, DType::f32, {rows}, whole.out.device);
      const Status status = merge(merge_args, {problem.stream()});
      ASSERT_TRUE(status.ok()) << status.message();
      problem.synchronize();
      // Shards and whole are rounded to the type, so there is one rounding more than in the model.
      reference::Bound bound = reference::bound_of(whole);
      bound.slack += dtype == DType::bf16 ? 0x1p-9 : 0x1p-12;
      const std::vector<Row> got = reference::results_on_device(whole, ids);
      for (std::size_t i = 0; i < ids.size(); ++i) {
        const reference::RowVerdict verdict = judge_row(want[i], got[i], bound);
        ASSERT_TRUE(verdict.ok) << count << " shards, row " << i << ": " << verdict.message;
      }
    }
  }
}

// Causal with more queries than tokens: the first queries see nothing, in split units too.
TEST(DeviceLessons, Lessons18CausalWithMoreQueriesThanTokens) {
  for (const std::int32_t length : {0, 1, 3, 6}) {
    for (const std::int32_t parts : {0, 1, 4}) {
      ProblemSpec spec;
      spec.lengths = {length, 70}, spec.seqlen_q = 7, spec.num_heads_q = 20, spec.num_parts = parts;
      DeviceProblem problem(spec);
      ASSERT_TRUE(problem.runs_right(kAllRows));
      const RowId first = {0, 0, 0};
      EXPECT_EQ(reference::results_on_device(problem.args(), std::span(&first, 1))[0].lse, kInfinity);
    }
  }
}

// Scores of 1e5 are known in fp32 to a hundredth, and weights no better: the bound, but for a slack of 2^-5.
testing::AssertionResult is_right_for_huge_scores(const DecodeArgs& args, const std::vector<RowId>& rows) {
  reference::Bound bound = reference::bound_of(args);
  bound.slack = 0x1p-5;
  const reference::Comparison comparison = reference::compare_on_device(args, true, rows, bound);
  if (comparison.ok) return testing::AssertionSuccess();
  return testing::AssertionFailure() << comparison.wrong_rows << " rows: " << comparison.message;
}

// A finite mask sentinel met large logits: q scaled by 1e4, with rows that see nothing and rows that see part.
TEST(DeviceLessons, Lessons19LargeLogits) {
  for (const DType dtype : kTypes) {
    for (const std::int32_t parts : {0, 1, 5}) {
      ProblemSpec spec;
      spec.dtype = dtype, spec.lengths = {200, 3, 1, 64}, spec.seqlen_q = 4, spec.q_scale = 1e4f;
      spec.num_parts = parts;
      DeviceProblem problem(spec);
      problem.run();
      problem.synchronize();
      EXPECT_TRUE(is_right_for_huge_scores(problem.args(), problem.rows())) << describe(spec);
    }
  }
}

// All logits far from 0, on either side: a masked token that counted as -5e4 would win over -1.3e5. One column decides,
// in steps of 2048, exact in every type; the winner is somewhere else in each row.
TEST(DeviceLessons, Lessons19AllLogitsFarFromZero) {
  for (const DType dtype : kTypes) {
    for (const double sign : {-1.0, 1.0}) {
      for (const std::int32_t parts : {0, 1, 5}) {
        ProblemSpec spec;
        spec.dtype = dtype, spec.lengths = {190, 3, 1, 64}, spec.seqlen_q = 4, spec.num_parts = parts;
        spec.softmax_scale = 1;
        Problem problem(spec);
        const TensorView& q = problem.decode_args().q;
        for (std::int64_t row = 0; row < 4 * 4 * 16; ++row) {
          for (int column = 0; column < kHeadDim; ++column)
            store(q, row * kHeadDim + column, column == 570 ? sign * 2048 : 0);
        }
        for (std::int32_t r = 0; r < problem.batch(); ++r) {
          for (std::int32_t t = 0; t < spec.lengths[static_cast<std::size_t>(r)]; ++t)
            store(problem.decode_args().kv_cache, token_offset(problem, r, t) + 570, 64 + (t * 37 + 90) % 191);
        }
        problem.accept_inputs();
        DeviceStep step(problem, parts);
        ASSERT_TRUE(step.schedule().ok());
        ASSERT_TRUE(step.decode().ok());
        step.fetch_results();
        const std::vector<RowId> rows = reference::Reference(problem.decode_args(), true).all_rows();
        EXPECT_TRUE(is_right_for_huge_scores(step.args(), rows)) << describe(spec);
      }
    }
  }
}

// Metadata built for another s_q, or a causal window off by one: every s_q, in few and many rows.
TEST(DeviceLessons, Lessons20EveryNumberOfQueries) {
  for (std::int32_t queries = 1; queries <= 9; ++queries) {
    for (const std::int32_t heads : {1, 8, 16, 128}) {
      for (const bool causal : {true, false}) {
        ProblemSpec spec;
        spec.lengths = {150, 64, 2, 640}, spec.seqlen_q = queries, spec.num_heads_q = heads, spec.causal = causal;
        DeviceProblem problem(spec);
        EXPECT_TRUE(problem.runs_right(kAllRows));
      }
    }
  }
}

// A draft token saw its successors: changing a token, however much, changes no bit of a row before it.
TEST(DeviceLessons, Lessons20LaterTokensChangeNoEarlierRow) {
  for (const std::int32_t queries : {2, 3, 5, 6, 7, 9}) {
    for (const std::int32_t length : {150, 128 + queries, 64}) {
      for (const std::int32_t later : {1, queries - 1}) {  // tokens that change, from the end
        ProblemSpec spec;
        spec.lengths = {length, 90}, spec.seqlen_q = queries, spec.num_heads_q = 8;
        Problem problem(spec);
        const DecodeArgs& args = problem.decode_args();
        const reference::Reference reference(args, true);
        ASSERT_TRUE(runs_right(problem));
        std::vector<Row> before;
        for (const RowId id : reference.all_rows()) before.push_back(reference.result(id));
        for (std::int32_t t = length - later; t < length; ++t) {
          for (int column = 0; column < kHeadDim; ++column)
            store(args.kv_cache, token_offset(problem, 0, t) + column, column % 2 ? 40. : -30.);
        }
        problem.accept_inputs();
        ASSERT_TRUE(run(problem, 0));
        const std::vector<RowId> rows = reference.all_rows();
        for (std::size_t i = 0; i < rows.size(); ++i) {
          const bool sees = rows[i].request == 0 && rows[i].query >= queries - later;
          EXPECT_EQ(reference.result(rows[i]).out != before[i].out, sees)
              << describe(spec) << ": request " << rows[i].request << " query " << rows[i].query;
        }
        EXPECT_TRUE(is_right(problem));
      }
    }
  }
}

// Rows of `problem` whose results are no longer `before`, after its inputs changed and it ran again.
std::vector<RowId> run_and_list_changes(Problem& problem, const std::vector<Row>& before) {
  problem.accept_inputs();
  EXPECT_TRUE(run(problem, problem.spec().num_parts));
  EXPECT_EQ(problem.damage(), "");
  const reference::Reference reference(problem.decode_args(), true);
  const std::vector<RowId> rows = reference.all_rows();
  std::vector<RowId> changed;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Row now = reference.result(rows[i]);
    if (now.out != before[i].out || now.lse != before[i].lse) changed.push_back(rows[i]);
  }
  return changed;
}

bool all_nan(const Row& row) {
  return std::isnan(row.lse) && std::all_of(row.out.begin(), row.out.end(), [](double x) { return std::isnan(x); });
}

ProblemSpec nan_spec(DType dtype, std::int32_t heads, std::int32_t parts) {
  ProblemSpec spec;
  spec.dtype = dtype, spec.lengths = {130, 64, 0, 700}, spec.seqlen_q = 2, spec.num_heads_q = heads;
  spec.num_parts = parts;
  return spec;
}

// A NaN must be neither lost nor spread. In q: that row is NaN, all others keep their bits.
TEST(DeviceLessons, Lessons30NanInQStaysInItsRow) {
  for (const DType dtype : kTypes) {
    for (const std::int32_t heads : {6, 10, 64}) {
      for (const std::int32_t parts : {1, 7}) {
        for (const int column : {0, 100, 511, 575}) {
          Problem problem(nan_spec(dtype, heads, parts));
          ASSERT_TRUE(runs_right(problem, 100));
          const DecodeArgs& args = problem.decode_args();
          const reference::Reference reference(args, true);
          std::vector<Row> before;
          for (const RowId id : reference.all_rows()) before.push_back(reference.result(id));
          const RowId poisoned = {3, 1, 4};
          store(args.q, 3 * args.q.strides[0] + args.q.strides[1] + 4 * args.q.strides[2] + column, kNan);
          EXPECT_EQ(run_and_list_changes(problem, before), std::vector{poisoned}) << describe(problem.spec());
          EXPECT_TRUE(all_nan(reference.result(poisoned)));
        }
      }
    }
  }
}

// In a cached token: every row that sees it is NaN, other requests and kv heads keep their bits. Rows of the same
// request and kv head that do not see it may be NaN.
TEST(DeviceLessons, Lessons30NanInATokenStaysInItsRequest) {
  for (const DType dtype : kTypes) {
    for (const std::int32_t heads : {6, 10, 64}) {
      for (const std::int32_t parts : {1, 7}) {
        for (const std::int32_t t : {0, 70, 698, 699}) {
          Problem problem(nan_spec(dtype, heads, parts));
          ASSERT_TRUE(runs_right(problem, 100));
          const DecodeArgs& args = problem.decode_args();
          const reference::Reference reference(args, true);
          std::vector<Row> before;
          for (const RowId id : reference.all_rows()) before.push_back(reference.result(id));
          store(args.kv_cache, token_offset(problem, 3, t) + 17, kNan);
          for (const RowId id : run_and_list_changes(problem, before)) EXPECT_EQ(id.request, 3) << id.head;
          for (const RowId id : reference.all_rows()) {
            if (id.request == 3 && reference.visible(3, id.query) > t) {
              EXPECT_TRUE(all_nan(reference.result(id))) << "query " << id.query << " head " << id.head;
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace flash_mla::test
