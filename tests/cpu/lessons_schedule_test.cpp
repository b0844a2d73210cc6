// What went wrong in production kernels around the schedule: batch limits, stale schedules, mismatched shapes, ladders
// of split counts. The number names the lesson.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cpu/step.h"

namespace flash_mla::test {
namespace {

using reference::Problem;
using reference::ProblemSpec;

// Many requests, few of them with tokens, so that memory stays small.
ProblemSpec wide_batch(std::int32_t batch) {
  ProblemSpec spec;
  spec.num_heads_q = 1, spec.page_size = 16, spec.num_parts = 14;
  for (std::int32_t r = 0; r < batch; ++r) spec.lengths.push_back((r + 1) % 41 == 0 || r == batch - 1 ? 1 + r % 16 : 0);
  return spec;
}

// A scheduler's memory that grew with the batch failed above 11.6 thousand requests.
TEST(Lessons, Lessons11LargeBatches) {
  for (const std::int32_t batch : {2500, 12000, 70000}) {
    Problem problem(wide_batch(batch));
    EXPECT_TRUE(runs_right(problem));
  }
}

// A fixed work list gave silently wrong rows from 16385 requests on.
TEST(Lessons, Lessons12NoBoundOnTheWorkList) {
  for (const std::int32_t batch : {16384, 16385, 20000}) {
    Problem problem(wide_batch(batch));
    EXPECT_TRUE(runs_right(problem));
  }
}

// A graph captured for B requests runs with fewer: requests past those that were scheduled are empty, and written.
TEST(Lessons, Lessons14PaddedBatch) {
  for (const std::int32_t scheduled : {0, 1, 3}) {
    ProblemSpec spec;
    spec.lengths = {300, 5, 70, 0, 0}, spec.num_parts = 4;
    for (std::size_t r = static_cast<std::size_t>(scheduled); r < 5; ++r) spec.lengths[r] = 0;
    Problem problem(spec);
    ScheduleArgs args = problem.schedule_args();
    args.cache_seqlens.shape[0] = scheduled;
    Step step(problem.plan_config());
    ASSERT_TRUE(step.schedule(args).ok());
    const Status status = step.decode(problem.decode_args());
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_TRUE(is_right(problem));
  }
}

// Shapes that do not fit each other were accepted: each mismatch is an error that names what is wrong with its value
// and what it should fit, and nothing is written.
TEST(Lessons, Lessons21MismatchesAreErrors) {
  struct Mismatch {
    const char* what;
    std::function<void(DecodeArgs&)> spoil;
    std::vector<std::string> names;
  };
  const Mismatch mismatches[] = {
      {"batch of q", [](DecodeArgs& a) { a.q.shape[0] = 2; }, {"q.shape[0] is 2", "cache_seqlens"}},
      {"batch of table",
       [](DecodeArgs& a) { a.block_table.shape[0] = 2; },
       {"block_table.shape[0] is 2", "cache_seqlens"}},
      {"batch of lengths", [](DecodeArgs& a) { a.cache_seqlens.shape[0] = 2; }, {"cache_seqlens.shape[0]"}},
      {"batch of out", [](DecodeArgs& a) { a.out.shape[0] = 2; }, {"out.shape[0] is 2", "q.shape[0]"}},
      {"batch of lse", [](DecodeArgs& a) { a.lse.shape[0] = 2; }, {"lse.shape[0] is 2", "q.shape[0]"}},
      {"queries of out", [](DecodeArgs& a) { a.out.shape[1] = 1; }, {"out.shape[1] is 1", "q.shape[1]"}},
      {"queries of lse", [](DecodeArgs& a) { a.lse.shape[2] = 1; }, {"lse.shape[2] is 1", "q.shape[1]"}},
      {"queries of q", [](DecodeArgs& a) { a.q.shape[1] = a.out.shape[1] = a.lse.shape[2] = 1; }, {"schedule_memory"}},
      {"too many queries", [](DecodeArgs& a) { a.q.shape[1] = 3; }, {"q.shape[1] is 3", "max_seqlen_q"}},
      {"heads of q", [](DecodeArgs& a) { a.q.shape[2] = 8; }, {"q.shape[2] is 8", "num_heads_q"}},
      {"heads of out", [](DecodeArgs& a) { a.out.shape[2] = 8; }, {"out.shape[2] is 8", "q.shape[2]"}},
      {"heads of lse", [](DecodeArgs& a) { a.lse.shape[1] = 8; }, {"lse.shape[1] is 8", "num_heads_q"}},
      {"kv heads", [](DecodeArgs& a) { a.kv_cache.shape[2] = 2; }, {"kv_cache.shape[2] is 2", "num_heads_kv"}},
      {"page size", [](DecodeArgs& a) { a.kv_cache.shape[1] = 32; }, {"kv_cache.shape[1] is 32", "page_size"}},
      {"width of q", [](DecodeArgs& a) { a.q.shape[3] = 512; }, {"q.shape[3] is 512", "q_rope"}},
      {"odd width of q", [](DecodeArgs& a) { a.q.shape[3] = 575; }, {"q.shape[3] is 575", "576"}},
      {"width of cache",
       [](DecodeArgs& a) { a.kv_cache.shape[3] = 512; },
       {"kv_cache.shape[3] is 512", "k_rope_cache"}},
      {"width of out", [](DecodeArgs& a) { a.out.shape[3] = 576; }, {"out.shape[3] is 576", "512"}},
      {"table too narrow",
       [](DecodeArgs& a) { a.block_table.shape[1] = 2; },
       {"block_table.shape[1] is 2", "cache_seqlens[0]"}},
      {"type of q", [](DecodeArgs& a) { a.q.dtype = DType::f16; }, {"q.dtype is f16", "bf16"}},
      {"type of cache", [](DecodeArgs& a) { a.kv_cache.dtype = DType::f16; }, {"kv_cache.dtype is f16", "bf16"}},
      {"type of out", [](DecodeArgs& a) { a.out.dtype = DType::f32; }, {"out.dtype is f32", "bf16"}},
      {"type of lse", [](DecodeArgs& a) { a.lse.dtype = DType::bf16; }, {"lse.dtype is bf16", "f32"}},
      {"type of table", [](DecodeArgs& a) { a.block_table.dtype = DType::i64; }, {"block_table.dtype is i64", "i32"}},
  };
  ProblemSpec spec;
  spec.lengths = {130, 0, 64}, spec.seqlen_q = 2;
  Problem problem(spec);
  Step step(problem.plan_config());
  ASSERT_TRUE(step.schedule(problem.schedule_args()).ok());
  for (const Mismatch& mismatch : mismatches) {
    DecodeArgs args = problem.decode_args();
    mismatch.spoil(args);
    const Status status = step.decode(args);
    EXPECT_EQ(status.code(), StatusCode::invalid_argument) << mismatch.what;
    for (const std::string& name : mismatch.names) {
      EXPECT_NE(std::string(status.message()).find(name), std::string::npos)
          << mismatch.what << ": \"" << status.message() << "\" does not say " << name;
    }
  }
  EXPECT_EQ(reference::count_nan(problem.decode_args().out), 3 * 2 * 16 * kLatentDim);
  EXPECT_EQ(problem.damage(), "");
  ASSERT_TRUE(step.decode(problem.decode_args()).ok());
  EXPECT_TRUE(is_right(problem));
}

// A schedule was reused after the lengths changed. On the CPU that is an error, and nothing is written.
TEST(Lessons, Lessons25StaleScheduleIsAnError) {
  for (const bool ragged : {false, true}) {
    ProblemSpec spec;
    spec.lengths = {130, 0, 64}, spec.ragged = ragged;
    if (ragged) spec.queries = {2, 1, 3};
    Problem problem(spec);
    const DecodeArgs& args = problem.decode_args();
    Step step(problem.plan_config());
    ASSERT_TRUE(step.schedule(problem.schedule_args()).ok());

    auto* lengths = static_cast<std::int32_t*>(args.cache_seqlens.data);
    for (const std::int32_t changed : {129, 1, 0}) {
      lengths[0] = changed;
      const Status status = step.decode(args);
      EXPECT_EQ(status.code(), StatusCode::invalid_argument);
      EXPECT_NE(std::string(status.message()).find("cache_seqlens"), std::string::npos) << status.message();
      EXPECT_NE(std::string(status.message()).find("schedule"), std::string::npos) << status.message();
    }
    lengths[0] = 64, lengths[2] = 130;  // the same lengths in another order
    EXPECT_FALSE(step.decode(args).ok());
    lengths[0] = 130, lengths[2] = 64;
    if (ragged) {
      auto* cu = static_cast<std::int32_t*>(args.cu_seqlens_q.data);
      cu[1] = 1;
      EXPECT_FALSE(step.decode(args).ok());
      cu[1] = 2;
    }
    EXPECT_EQ(reference::count_nan(args.out), args.q.shape[0] * (ragged ? 1 : args.q.shape[1]) * 16 * kLatentDim);
    EXPECT_TRUE(step.decode(args).ok());
    EXPECT_TRUE(is_right(problem));
  }
}

// Memory that schedule() never wrote, or wrote for another plan.
TEST(Lessons, Lessons25ForeignScheduleIsAnError) {
  ProblemSpec spec;
  spec.lengths = {130, 20}, spec.num_parts = 4;
  Problem problem(spec);
  Step step(problem.plan_config());
  step.schedule_memory().fill_random(7);
  EXPECT_EQ(step.decode(problem.decode_args()).code(), StatusCode::invalid_argument);
  PlanConfig other = problem.plan_config();
  other.causal = false, other.num_parts = 3;
  Step fewer_parts(other);
  ASSERT_TRUE(fewer_parts.schedule(problem.schedule_args()).ok());
  const MemoryView theirs = fewer_parts.schedule_memory().memory();
  reference::Buffer scratch("scratch", step.plan().scratch_bytes());
  EXPECT_EQ(decode(step.plan(), problem.decode_args(), theirs, scratch.memory()).code(), StatusCode::invalid_argument);
  EXPECT_EQ(reference::count_nan(problem.decode_args().out), 2 * 16 * kLatentDim);
}

// A ladder of split counts knew no machine but its own.
TEST(Lessons, Lessons26AnyNumberOfParts) {
  for (const std::int32_t parts : {1, 14, 78, 114, 132, 144, 200}) {
    for (const std::int32_t heads : {16, 128}) {
      ProblemSpec spec;
      spec.lengths = {3000, 0, 65, 1000, 1}, spec.num_heads_q = heads, spec.num_parts = parts;
      Problem problem(spec);
      EXPECT_TRUE(runs_right(problem, 60));
    }
  }
}

}  // namespace
}  // namespace flash_mla::test
