// What went wrong in production kernels under CUDA graphs: one graph, captured once, must serve any later lengths. The
// number names the lesson.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "device/device_problem.h"
#include "device/graph.h"

namespace flash_mla::test {
namespace {

using reference::ProblemSpec;

constexpr std::int64_t kRows = 400;

ProblemSpec roomy_spec(const Lengths& most, int heads, int queries) {
  ProblemSpec spec;
  spec.lengths = most, spec.num_heads_q = heads, spec.seqlen_q = queries;
  return spec;
}

// Replays with other lengths must give the bits of an eager step with them, and be right.
void check_replay(DeviceProblem& problem, const Graph& graph, const Lengths& lengths) {
  SCOPED_TRACE(testing::PrintToString(lengths));
  problem.set_lengths(lengths);
  problem.run();
  const Snapshot eager = problem.snapshot();
  ASSERT_TRUE(problem.is_right(kRows));
  problem.clear_results();
  ASSERT_FALSE(problem.is_right(0)) << "results were not cleared";
  graph.launch();
  ASSERT_TRUE(problem.is_right(kRows));
  EXPECT_EQ(problem.words_differing(eager), 0);
}

// Captured with lengths A, replayed with B: longer, shorter, zero, cut otherwise.
TEST(DeviceLessons, Lessons13ReplaysFollowTheLengths) {
  const Lengths most = {2000, 600, 1000, 700, 4096};
  const std::vector<Lengths> later = {{1, 1, 1, 1, 1}, most,           {0, 0, 0, 0, 0},         {0, 65, 0, 1, 4096},
                                      {2000, 0, 0, 0}, {3, 0, 999, 0}, {64, 128, 192, 256, 320}};
  for (const int heads : {16, 128}) {
    for (const int queries : {1, 2}) {
      for (const Lengths& captured_with : {later[0], later[1], later[2], later[6]}) {
        DeviceProblem problem(roomy_spec(most, heads, queries));
        problem.set_lengths(captured_with);
        const Graph graph(problem.stream(), [&] { problem.schedule(), problem.decode(); });
        for (Lengths lengths : later) {
          lengths.resize(most.size(), 0);
          check_replay(problem, graph, lengths);
        }
      }
    }
  }
}

// Ragged queries change with the lengths.
TEST(DeviceLessons, Lessons13ReplaysFollowRaggedQueries) {
  ProblemSpec spec = roomy_spec({900, 100, 300, 0}, 16, 1);
  spec.ragged = true, spec.queries = {4, 2, 3, 1}, spec.padding_queries = 2;
  DeviceProblem problem(spec);
  const Graph graph(problem.stream(), [&] { problem.schedule(), problem.decode(); });
  for (const Lengths& queries : {Lengths{4, 2, 3, 1}, {1, 1, 1, 1}, {0, 0, 0, 0}, {4, 4, 4, 0}, {0, 3, 0, 1}}) {
    SCOPED_TRACE(testing::PrintToString(queries));
    problem.set_queries(queries);
    for (const Lengths& lengths : {Lengths{900, 100, 300, 0}, {1, 0, 64, 0}, {0, 0, 0, 0}}) {
      check_replay(problem, graph, lengths);
    }
  }
}

// A decode captured for B requests runs behind schedules of n < B; requests past n are padding.
TEST(DeviceLessons, Lessons14PaddedBatch) {
  for (const int heads : {16, 32, 128}) {
    const Lengths most = {2000, 600, 1000, 700, 4096};
    DeviceProblem problem(roomy_spec(most, heads, 1));
    problem.schedule();
    const Graph graph(problem.stream(), [&] { problem.decode(); });
    for (const std::int64_t present : {2, 1, 0, 5, 4, 3}) {
      Lengths lengths = most;
      std::fill(lengths.begin() + present, lengths.end(), 0);
      problem.set_lengths(lengths);
      problem.clear_results();
      problem.schedule_args().cache_seqlens.shape[0] = present;
      problem.schedule();
      graph.launch();
      EXPECT_TRUE(problem.is_right(kRows)) << present << " of " << most.size();
    }
  }
}

// One long request beside many empty ones, with as many splits as there are parts, after a capture at length 1.
TEST(DeviceLessons, Lessons15MoreSplitsAtReplayThanAtCapture) {
  for (const int heads : {16, 32, 128}) {
    const std::int32_t longest = 128 * 1024;
    DeviceProblem problem(roomy_spec({longest, 64, 64, 64}, heads, 1));
    problem.set_lengths({1, 1, 1, 1});
    const Graph graph(problem.stream(), [&] { problem.schedule(), problem.decode(); });
    problem.clear_results();
    graph.launch();
    ASSERT_TRUE(problem.is_right(kRows));
    for (const Lengths& lengths : {Lengths{longest, 1, 0, 64}, {1, 1, 1, 1}, {longest - 63, 0, 0, 0}}) {
      problem.set_lengths(lengths);
      problem.clear_results();
      graph.launch();
      EXPECT_TRUE(problem.is_right(kRows)) << testing::PrintToString(lengths);
    }
  }
}

// What is enqueued goes to the given stream: all of it is captured, and nothing runs before the launch.
TEST(DeviceLessons, Lessons24EverythingIsOnTheGivenStream) {
  DeviceProblem problem(roomy_spec({300, 70}, 128, 1));
  problem.clear_results();
  problem.synchronize();
  const Snapshot unwritten = problem.snapshot();
  const Graph graph(problem.stream(), [&] { problem.schedule(), problem.decode(); });
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  EXPECT_GE(graph.nodes(), 2u);
  EXPECT_EQ(problem.words_differing(unwritten), 0);
  graph.launch();
  EXPECT_TRUE(problem.is_right(kRows));
}

// Streams share a schedule and differ in scratch and results; each works alone.
TEST(DeviceLessons, Lessons24StreamsAtTheSameTime) {
  constexpr int kStreams = 4, kRounds = 200;
  std::vector<std::unique_ptr<DeviceProblem>> problems;
  std::vector<Snapshot> expected;
  for (int i = 0; i < kStreams; ++i) {
    ProblemSpec spec = roomy_spec({1000, 65, 0, 300 + i}, i % 2 ? 16 : 128, 1 + i / 2);
    spec.seed = static_cast<std::uint64_t>(i) + 1;
    problems.push_back(std::make_unique<DeviceProblem>(spec));
    ASSERT_TRUE(problems.back()->runs_right(kRows));
    expected.push_back(problems.back()->snapshot());
  }
  const DeviceCount wrong;
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kStreams; ++i) {
      problems[static_cast<std::size_t>(i)]->run();
      problems[static_cast<std::size_t>(i)]->count_differing(expected[static_cast<std::size_t>(i)], wrong);
    }
  }
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  EXPECT_EQ(wrong.fetch(nullptr), 0);
}

}  // namespace
}  // namespace flash_mla::test
