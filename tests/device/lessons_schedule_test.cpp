// What went wrong in production kernels between kernels, and with many requests, on the GPU. The number names the
// lesson.
#include <gtest/gtest.h>

#include <algorithm>
#include <climits>
#include <memory>
#include <vector>

#include "device/device_problem.h"
#include "device/late_writer.h"

namespace flash_mla::test {
namespace {

using reference::ProblemSpec;
using reference::Random;

constexpr std::int64_t kRows = 300;

ProblemSpec roomy_spec(int heads, int queries) {
  ProblemSpec spec;
  spec.lengths = {2000, 600, 1000, 700, 4096, 64, 64, 64}, spec.num_heads_q = heads, spec.seqlen_q = queries;
  return spec;
}

// Lengths within those of the spec: all, none, and drawn.
std::vector<Lengths> length_sets(const ProblemSpec& spec, int count) {
  std::vector<Lengths> sets = {spec.lengths, Lengths(spec.lengths.size(), 0), Lengths(spec.lengths.size(), 1)};
  Random random(5);
  while (static_cast<int>(sets.size()) < count) {
    Lengths lengths;
    for (const std::int32_t most : spec.lengths)
      lengths.push_back(random.below(4) == 0 ? 0 : static_cast<std::int32_t>(random.between(0, most)));
    sets.push_back(std::move(lengths));
  }
  return sets;
}

// A step's lengths on the GPU, and the results that were judged right.
struct JudgedStep {
  DeviceMemory lengths;
  Snapshot results;
};

std::vector<JudgedStep> judge_steps(DeviceProblem& problem, const std::vector<Lengths>& sets) {
  std::vector<JudgedStep> steps;
  for (const Lengths& lengths : sets) {
    problem.set_lengths(lengths);
    EXPECT_TRUE(problem.runs_right(kRows)) << testing::PrintToString(lengths);
    steps.push_back({uploaded(lengths), problem.snapshot()});
  }
  problem.synchronize();
  return steps;
}

// What the kernel before has just written was read from a stale cache: lengths, schedule and decode one behind the
// other on one stream, no waiting anywhere, every round with other lengths.
TEST(DeviceLessons, Lessons01ScheduleThenDecodeBackToBack) {
  constexpr int kRounds = 10000;
  for (const auto& [heads, queries] : {std::pair{16, 1}, {128, 1}, {16, 2}}) {
    DeviceProblem problem(roomy_spec(heads, queries));
    const std::vector<JudgedStep> steps = judge_steps(problem, length_sets(problem.spec(), 24));
    const DeviceCount wrong;
    Random random(9);
    for (int round = 0; round < kRounds; ++round) {
      const JudgedStep& step = steps[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(steps.size())))];
      FLASH_MLA_REQUIRE(cudaMemcpyAsync(problem.args().cache_seqlens.data, step.lengths.data(),
                                        static_cast<std::size_t>(step.lengths.bytes()), cudaMemcpyDefault,
                                        problem.stream()));
      problem.schedule();
      problem.decode();
      problem.count_differing(step.results, wrong);
    }
    EXPECT_EQ(wrong.fetch(problem.stream()), 0) << heads << " heads";
  }
}

// A kernel before that lets its successors start at once and then writes the lengths, the queries or the cache late.
TEST(DeviceLessons, Lessons29LatePredecessors) {
  for (const int heads : {16, 128}) {
    DeviceProblem problem(roomy_spec(heads, 1));
    const std::vector<JudgedStep> steps = judge_steps(problem, length_sets(problem.spec(), 6));
    const DecodeArgs& args = problem.args();
    const std::int64_t q_bytes = args.q.shape[0] * args.q.strides[0] * 2;
    const std::int64_t cache_bytes = args.kv_cache.shape[0] * args.kv_cache.strides[0] * 2;
    const DeviceMemory q(q_bytes), cache(cache_bytes);
    const auto copy = [&](void* to, const void* from, std::int64_t bytes) {
      FLASH_MLA_REQUIRE(
          cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, problem.stream()));
    };
    const auto spoil = [&](void* data, std::int64_t bytes) {
      FLASH_MLA_REQUIRE(cudaMemsetAsync(data, 0x3f, static_cast<std::size_t>(bytes), problem.stream()));
    };
    copy(q.data(), args.q.data, q_bytes);
    copy(cache.data(), args.kv_cache.data, cache_bytes);
    const DeviceCount wrong;
    for (int round = 0; round < 600; ++round) {
      const JudgedStep& step = steps[static_cast<std::size_t>(round) % steps.size()];
      const JudgedStep& other = steps[static_cast<std::size_t>(round + 1) % steps.size()];
      const int late = round % 3, delay_us = 5 + round % 40;
      // Right already but for what comes late.
      copy(args.cache_seqlens.data, (late == 0 ? other : step).lengths.data(), step.lengths.bytes());
      if (late == 0) {
        copy_late(args.cache_seqlens.data, step.lengths.data(), step.lengths.bytes(), delay_us, problem.stream());
        problem.schedule();
      } else {
        problem.schedule();
        void* const data = late == 1 ? args.q.data : args.kv_cache.data;
        const std::int64_t bytes = late == 1 ? q_bytes : cache_bytes;
        spoil(data, bytes);
        copy_late(data, late == 1 ? q.data() : cache.data(), bytes, delay_us, problem.stream());
      }
      problem.decode();
      problem.count_differing(step.results, wrong);
    }
    EXPECT_EQ(wrong.fetch(problem.stream()), 0) << heads << " heads";
  }
}

// Launch errors of grids beyond 65535 were swallowed, and outputs silently missing.
TEST(DeviceLessons, Lessons10MoreRowsOfBatchThanAGridDimension) {
  for (const auto& [batch, queries, heads] : {std::tuple{65536, 1, 2}, {35000, 2, 1}, {9400, 7, 16}, {1, 70000, 1}}) {
    ProblemSpec spec;
    spec.lengths.assign(static_cast<std::size_t>(batch), 0), spec.seqlen_q = queries, spec.num_heads_q = heads;
    spec.page_size = 16;
    for (std::size_t r = 0; r < spec.lengths.size(); ++r) spec.lengths[r] = static_cast<std::int32_t>(r * 5 % 23);
    if (batch == 1) spec.lengths[0] = 69950;
    DeviceProblem problem(spec);
    EXPECT_TRUE(problem.runs_right(batch == 1 ? 500 : 20000));
  }
}

// A scheduler's memory that grew with the batch failed above 11.6 thousand requests; a fixed work list gave silently
// wrong rows from 16385 requests on.
TEST(DeviceLessons, Lessons11And12LargeBatches) {
  for (const int batch : {2500, 12000, 16384, 16385, 20000, 70000}) {
    for (const std::int32_t parts : {0, 14}) {
      ProblemSpec spec;
      spec.num_heads_q = 1, spec.page_size = 16, spec.num_parts = parts;
      for (int r = 0; r < batch; ++r) spec.lengths.push_back(r % 41 == 40 || r == batch - 1 ? 1 + r % 100 : 0);
      DeviceProblem problem(spec);
      EXPECT_TRUE(problem.runs_right(INT64_MAX));
    }
  }
}

// Lengths that changed after schedule: values are undefined, accesses are not. Inputs and what lies between rows stay
// as they are, and the next proper step is right.
void check_changed_lengths(bool guarded) {
  const std::int64_t rows = guarded ? kRows : 5;  // few: tools are slow
  Random random(11);
  for (const int heads : {16, 128}) {
    for (const bool ragged : {false, true}) {
      ProblemSpec spec = roomy_spec(heads, 1);
      spec.lengths = {300, 0, 65, 1000}, spec.row_gap = 8, spec.page_size = ragged ? 16 : 64;
      spec.ragged = ragged;
      if (ragged) spec.queries = {2, 1, 3, 1}, spec.padding_queries = 2;
      DeviceProblem problem(spec, guarded);
      ASSERT_TRUE(problem.runs_right(rows));
      const Snapshot expected = problem.snapshot();
      for (int round = 0; round < 12; ++round) {
        Lengths scheduled, changed;
        for (int r = 0; r < 4; ++r) {
          scheduled.push_back(static_cast<std::int32_t>(random.between(0, spec.lengths[static_cast<std::size_t>(r)])));
          changed.push_back(static_cast<std::int32_t>(random.pick(std::initializer_list<std::int64_t>{
              0, 1, random.between(0, 1000), random.between(0, 1000), 20000, -1, INT_MIN})));
        }
        problem.set_lengths(scheduled);
        problem.schedule();
        problem.set_lengths(changed);
        problem.clear_results();
        problem.decode();
        FLASH_MLA_REQUIRE(cudaStreamSynchronize(problem.stream()));
        EXPECT_TRUE(problem.left_all_else_alone()) << testing::PrintToString(changed);
      }
      problem.set_lengths(spec.lengths);
      ASSERT_TRUE(problem.runs_right(rows));
      EXPECT_EQ(problem.words_differing(expected), 0);
    }
  }
}

TEST(DeviceLessons, Lessons25ChangedLengthsWithNothingMappedBehind) { check_changed_lengths(true); }
TEST(DeviceLessons, Lessons25SanitizeChangedLengths) { check_changed_lengths(false); }

// The wrong device: tensors on a GPU that is not current.
TEST(DeviceLessons, Lessons24TensorsOnAnotherGpu) {
  int count = 0;
  FLASH_MLA_REQUIRE(cudaGetDeviceCount(&count));
  if (count < 2) GTEST_SKIP() << "this machine has one GPU";
  FLASH_MLA_REQUIRE(cudaSetDevice(1));
  auto problem = std::make_unique<DeviceProblem>(roomy_spec(128, 1), false, 1);
  problem->clear_results();
  FLASH_MLA_REQUIRE(cudaSetDevice(0));
  problem->schedule();
  problem->decode();
  int current = -1;
  FLASH_MLA_REQUIRE(cudaGetDevice(&current));
  EXPECT_EQ(current, 0);
  FLASH_MLA_REQUIRE(cudaSetDevice(1));
  EXPECT_TRUE(problem->is_right(kRows));
  problem.reset();
  FLASH_MLA_REQUIRE(cudaSetDevice(0));
}

}  // namespace
}  // namespace flash_mla::test
