// The same inputs give the same bits, whatever threads serve the parts; any number of parts is right; and what a row
// does not see does not touch it.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "cpu/step.h"
#include "reference/float_format.h"

namespace flash_mla::test {
namespace {

using reference::Problem;
using reference::ProblemSpec;
using reference::RowId;

ProblemSpec mixed_spec() {
  ProblemSpec spec;
  spec.lengths = {700, 0, 65, 1300}, spec.seqlen_q = 2, spec.num_heads_q = 48, spec.num_parts = 7;
  return spec;
}

class Determinism : public testing::TestWithParam<DType> {
 protected:
  void TearDown() override { omp_set_num_threads(omp_get_num_procs()); }
};

TEST_P(Determinism, SameBitsOnAnyNumberOfThreads) {
  ProblemSpec spec = mixed_spec();
  spec.dtype = GetParam();
  Problem problem(spec);
  ASSERT_TRUE(run(problem).ok());
  const Bits expected = bits_of(problem.decode_args());
  for (const int threads : {1, 2, 3, 7, 16}) {
    omp_set_num_threads(threads);
    for (int round = 0; round < 5; ++round) {
      problem.clear_results();
      ASSERT_TRUE(run(problem).ok());
      ASSERT_TRUE(bits_of(problem.decode_args()) == expected) << threads << " threads, round " << round;
    }
  }
}

// The number of threads may change after the plan was made, which sized the scratch.
TEST_P(Determinism, ThreadsMayComeAndGo) {
  ProblemSpec spec = mixed_spec();
  spec.dtype = GetParam();
  Problem problem(spec);
  for (const int at_plan : {1, 5}) {
    omp_set_num_threads(at_plan);
    Step step(problem.plan_config());
    ASSERT_TRUE(step.schedule(problem.schedule_args()).ok());
    for (const int at_decode : {1, 2, 16}) {
      omp_set_num_threads(at_decode);
      problem.clear_results();
      ASSERT_TRUE(step.decode(problem.decode_args()).ok());
      EXPECT_TRUE(is_right(problem, 100)) << at_plan << " threads at plan, " << at_decode << " at decode";
    }
  }
}

// Calls from inside a parallel region of the caller's own, as an engine may.
TEST_P(Determinism, SameBitsInsideAParallelRegion) {
  ProblemSpec spec = mixed_spec();
  spec.dtype = GetParam();
  Problem problem(spec);
  ASSERT_TRUE(run(problem).ok());
  const Bits expected = bits_of(problem.decode_args());
  std::vector<std::unique_ptr<Problem>> problems;
  for (int i = 0; i < 3; ++i) problems.push_back(std::make_unique<Problem>(spec));
  std::vector<int> ok(problems.size(), 0);
#pragma omp parallel for num_threads(3)
  for (std::size_t i = 0; i < problems.size(); ++i) ok[i] = run(*problems[i]).ok();
  for (std::size_t i = 0; i < problems.size(); ++i) {
    ASSERT_TRUE(ok[i]);
    EXPECT_TRUE(bits_of(problems[i]->decode_args()) == expected);
  }
}

TEST_P(Determinism, SameBitsWhereverTheMemoryLies) {
  ProblemSpec spec = mixed_spec();
  spec.dtype = GetParam();
  Problem problem(spec);
  ASSERT_TRUE(run(problem).ok());
  const Bits expected = bits_of(problem.decode_args());
  for (std::size_t shift = 0; shift < 64; shift += 20) {  // multiples of 4 bytes, an element of any tensor
    std::vector<std::vector<std::byte>> memories;
    std::vector<void*> bases;
    for (const auto& buffer : problem.buffers()) {
      memories.emplace_back(static_cast<std::size_t>(buffer.bytes()) + shift);
      bases.push_back(memories.back().data() + shift);
      std::memcpy(bases.back(), buffer.data(), static_cast<std::size_t>(buffer.bytes()));
    }
    const DecodeArgs moved = problem.relocate(problem.decode_args(), bases, {});
    Step step(problem.plan_config());
    ASSERT_TRUE(step.schedule(problem.schedule_args()).ok());
    ASSERT_TRUE(step.decode(moved).ok());
    EXPECT_TRUE(bits_of(moved) == expected) << shift;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Determinism, testing::Values(DType::bf16, DType::f16, DType::f32));

// Splits everywhere: every cut of the work that 1 to 200 parts make is right.
TEST(Parts, AnyNumberIsRight) {
  ProblemSpec spec;
  spec.lengths = {300, 0, 1000, 64}, spec.seqlen_q = 2, spec.num_heads_q = 4;
  Problem problem(spec);
  const DecodeArgs& args = problem.decode_args();
  reference::Reference reference(args, spec.causal);
  const std::vector<RowId> rows = reference.all_rows();
  std::vector<reference::ReferenceRow> want;
  for (const RowId row : rows) want.push_back(reference.row(row));
  for (std::int32_t parts = 1; parts <= 200; ++parts) {
    PlanConfig config = problem.plan_config();
    config.num_parts = parts;
    Step step(config);
    ASSERT_EQ(step.plan().num_parts(), parts);
    problem.clear_results();
    ASSERT_TRUE(step.schedule(problem.schedule_args()).ok());
    ASSERT_TRUE(step.decode(args).ok());
    const reference::Comparison comparison = compare_rows(args, spec.causal, rows, want);
    ASSERT_TRUE(comparison.ok) << parts << " parts: " << comparison.message;
  }
}

// Writes other numbers into one token of a request, all kv heads.
void change_token(const Problem& problem, std::int32_t request, std::int32_t t, double value) {
  const DecodeArgs& args = problem.decode_args();
  const TensorView& cache = args.kv_cache;
  const std::int32_t page_size = problem.spec().page_size;
  const std::int64_t page =
      static_cast<const std::int32_t*>(args.block_table.data)[request * args.block_table.strides[0] + t / page_size];
  for (std::int64_t head = 0; head < cache.shape[2]; ++head) {
    for (std::int64_t column = 0; column < cache.shape[3]; ++column) {
      const std::int64_t at =
          page * cache.strides[0] + t % page_size * cache.strides[1] + head * cache.strides[2] + column;
      reference::store_element(cache.dtype, static_cast<char*>(cache.data) + at * size_in_bytes(cache.dtype),
                               column % 2 == 0 ? value : -value / 2);
    }
  }
}

std::vector<std::vector<std::byte>> rows_bits(const Problem& problem, const std::vector<RowId>& rows) {
  std::vector<std::vector<std::byte>> bits;
  for (const RowId row : rows) bits.push_back(bits_of_row(problem.decode_args(), row));
  return bits;
}

// A draft token must not see its successors: with every query length, a change of token t leaves each row that does not
// see t as it was, to the bit, and changes each row that does.
TEST(Lessons, Lessons20LaterTokensLeaveEarlierRowsAlone) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (std::int32_t seqlen_q = 1; seqlen_q <= 9; ++seqlen_q) {
      ProblemSpec spec;
      spec.dtype = dtype, spec.seqlen_q = seqlen_q, spec.num_heads_q = 3;
      spec.lengths = {66, 5, 128}, spec.num_parts = 3, spec.seed = static_cast<std::uint64_t>(seqlen_q);
      Problem problem(spec);
      ASSERT_TRUE(run(problem).ok());
      ASSERT_TRUE(is_right(problem));
      reference::Reference reference(problem.decode_args(), true);
      const std::vector<RowId> rows = reference.all_rows();
      auto before = rows_bits(problem, rows);
      for (std::int32_t back = 1; back <= std::min(seqlen_q, 5); ++back) {
        for (std::int32_t r = 0; r < 3; ++r) change_token(problem, r, reference.length(r) - back, 2.0 + back);
        ASSERT_TRUE(run(problem).ok());
        const auto after = rows_bits(problem, rows);
        for (std::size_t i = 0; i < rows.size(); ++i) {
          const bool sees =
              reference.visible(rows[i].request, rows[i].query) > reference.length(rows[i].request) - back;
          ASSERT_EQ(after[i] == before[i], !sees)
              << describe(spec) << ": request " << rows[i].request << " query " << rows[i].query << " back " << back;
        }
        before = after;
      }
    }
  }
}

}  // namespace
}  // namespace flash_mla::test
