// The same inputs give the same bits, 10,000 times on every class of shapes: P written for the tensor cores without a
// fence, or shared memory used again without a barrier, showed in production as results that change from run to run.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "device/device_problem.h"

namespace flash_mla::test {
namespace {

using reference::ProblemSpec;

constexpr int kRuns = 10000;

struct ShapeClass {
  const char* name;
  ProblemSpec spec;
};

ProblemSpec spec_of(Lengths lengths, int heads, int queries) {
  ProblemSpec spec;
  spec.lengths = std::move(lengths), spec.num_heads_q = heads, spec.seqlen_q = queries;
  return spec;
}

// Few and many rows, whole units and units in few, many and all parts, each way to load queries and pages.
std::vector<ShapeClass> shape_classes() {
  std::vector<ShapeClass> all = {
      {"OneBlock", spec_of({64}, 64, 1)},
      {"OneRow", spec_of({150}, 1, 1)},
      {"FewHeads", spec_of({1000, 65, 300, 0, 1}, 16, 1)},
      {"SomeHeads", spec_of({1000, 65, 300, 0, 1}, 32, 1)},
      {"ManyHeads", spec_of({1000, 65, 300, 0, 1}, 128, 1)},
      {"TwoQueries", spec_of({700, 128, 2}, 128, 2)},
      {"ManyQueries", spec_of({500, 100}, 16, 9)},
      {"OddHeads", spec_of({700, 33}, 100, 3)},
      {"LongContext", spec_of({32768}, 16, 1)},
      {"LongContextManyHeads", spec_of({32768}, 128, 1)},
      {"LongContextSomeHeads", spec_of({32768}, 32, 1)},
      {"Batch", spec_of(Lengths(64, 200), 16, 1)},
      {"BatchManyHeads", spec_of(Lengths(32, 300), 128, 1)},
      {"ManyRequests", spec_of(Lengths(600, 20), 8, 1)},
      {"Gathered", spec_of({600, 70}, 9, 2)},
      {"KvHeads", spec_of({600, 70, 1}, 16, 2)},
      {"ShortPages", spec_of({1000, 65, 17}, 64, 1)},
      {"LongPages", spec_of({1000, 65, 17}, 64, 1)},
      {"Ragged", spec_of({300, 0, 70, 200}, 32, 1)},
      {"LargeScores", spec_of({1500, 90}, 64, 1)},
  };
  for (ShapeClass& shape : all) {
    const std::string name = shape.name;
    if (name == "Gathered") shape.spec.num_heads_kv = 3;
    if (name == "KvHeads") shape.spec.num_heads_kv = 8;
    if (name == "ShortPages") shape.spec.page_size = 16, shape.spec.joint_cache = false;
    if (name == "LongPages") shape.spec.page_size = 128, shape.spec.joint_q = false;
    if (name == "Ragged") shape.spec.ragged = true, shape.spec.queries = {2, 1, 0, 4}, shape.spec.padding_queries = 3;
    if (name == "LargeScores") shape.spec.q_scale = 30;
  }
  return all;
}

class RepeatRuns : public testing::TestWithParam<std::tuple<ShapeClass, DType>> {};

// Two sets of queries take turns, so that nothing that one run left behind, in results or scratch, can serve the next.
TEST_P(RepeatRuns, Lessons02To04GiveTheSameBits) {
  ProblemSpec spec = std::get<0>(GetParam()).spec;
  spec.dtype = std::get<1>(GetParam());
  DeviceProblem problem(spec);
  DeviceProblem twin([&] {
    ProblemSpec other = spec;
    other.seed += 1;
    return other;
  }());
  twin.synchronize();
  struct Queries {
    TensorView q, q_rope;
  };
  const Queries turns[2] = {{problem.args().q, problem.args().q_rope}, {twin.args().q, twin.args().q_rope}};
  std::vector<Snapshot> expected;
  for (const Queries& queries : turns) {
    problem.args().q = queries.q, problem.args().q_rope = queries.q_rope;
    ASSERT_TRUE(problem.runs_right(300));
    expected.push_back(problem.snapshot());
  }
  ASSERT_GT(problem.words_differing(expected[0]), 0);

  const DeviceCount differing;
  for (int i = 0; i < kRuns; ++i) {
    const Queries& queries = turns[i % 2];
    problem.args().q = queries.q, problem.args().q_rope = queries.q_rope;
    if (i % 100 == 0) problem.schedule();
    problem.decode();
    problem.count_differing(expected[static_cast<std::size_t>(i % 2)], differing);
  }
  EXPECT_EQ(differing.fetch(problem.stream()), 0) << describe(spec);
}

INSTANTIATE_TEST_SUITE_P(Shapes, RepeatRuns,
                         testing::Combine(testing::ValuesIn(shape_classes()), testing::Values(DType::bf16, DType::f16)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) + "_" + to_string(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace flash_mla::test
