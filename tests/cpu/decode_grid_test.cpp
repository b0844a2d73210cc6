// Decoding on the CPU over a pairwise-covering grid of shapes, layouts, types and part counts, with hostile memory,
// each against the fp64 reference within the bound of docs/conventions.md.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "cpu/step.h"
#include "reference/pairwise.h"

namespace flash_mla::test {
namespace {

using reference::Poison;
using reference::Problem;
using reference::ProblemSpec;
using reference::Random;

const std::vector<std::pair<int, int>>& head_counts() {
  static const std::vector<std::pair<int, int>> pairs = [] {
    std::vector<std::pair<int, int>> all;
    for (int h_q : {1, 3, 9, 16, 63, 64, 100, 126, 128}) {
      for (int h_kv : {1, 2, 3, 8}) {
        if (h_q % h_kv == 0) all.emplace_back(h_q, h_kv);
      }
    }
    return all;
  }();
  return pairs;
}

constexpr int kLengthPatterns = 9;
std::vector<std::int32_t> lengths_of(int pattern, Random& random) {
  const auto drawn = [&](int batch, int most) {
    std::vector<std::int32_t> lengths(static_cast<std::size_t>(batch));
    for (auto& length : lengths) length = static_cast<std::int32_t>(random.between(0, most));
    return lengths;
  };
  switch (pattern) {
    case 0:
      return {0};
    case 1:
      return {1};
    case 2:
      return {64, 64};
    case 3:
      return {65, 20};
    case 4:
      return {0, 140, 20, 0, 1, 63};
    case 5:
      return drawn(6, 700);
    case 6:
      return {2049};
    case 7:
      return drawn(64, 120);
    default:
      return {static_cast<std::int32_t>(random.between(3000, 4200)), 100};
  }
}

constexpr int kQueryPatterns = 11;  // s_q = 1 .. 9, ragged, ragged with padding
void set_queries(ProblemSpec* spec, int pattern, Random& random) {
  if (pattern < 9) {
    spec->seqlen_q = pattern + 1;
    return;
  }
  spec->ragged = true;
  for (std::size_t i = 0; i < spec->lengths.size(); ++i) {
    spec->queries.push_back(static_cast<std::int32_t>(random.between(0, 5)));
  }
  if (pattern == 10) spec->padding_queries = 3;
}

constexpr int kMemoryPatterns = 6;
void set_memory(ProblemSpec* spec, int pattern) {
  switch (pattern) {
    case 1:
      spec->row_gap = 8;
      break;
    case 2:
      spec->row_gap = 5, spec->offset_elements = 3;
      break;
    case 3:
      spec->layers = 3;
      break;
    case 4:
      spec->heads_first = true, spec->exact_table = false;
      break;
    case 5:
      spec->want_lse = false, spec->spare_pages = 0;
      break;
    default:
      break;
  }
}

constexpr std::int32_t kPages[] = {16, 32, 64, 128};
constexpr DType kTypes[] = {DType::bf16, DType::f16, DType::f32};
constexpr Poison kPoisons[] = {Poison::mixed, Poison::nan, Poison::inf};
constexpr std::int32_t kParts[] = {0, 1, 2, 7, 33, 132};

std::vector<ProblemSpec> grid() {
  const auto cases = reference::pairwise_cases(
      {static_cast<int>(head_counts().size()), kQueryPatterns, kLengthPatterns, kMemoryPatterns, 6, 4, 4, 3, 3, 2},
      20240507);
  std::vector<ProblemSpec> specs;
  for (const auto& chosen : cases) {
    ProblemSpec spec;
    spec.seed = specs.size() + 1;
    Random random(spec.seed);
    spec.num_heads_q = head_counts()[static_cast<std::size_t>(chosen[0])].first;
    spec.num_heads_kv = head_counts()[static_cast<std::size_t>(chosen[0])].second;
    spec.lengths = lengths_of(chosen[2], random);
    set_queries(&spec, chosen[1], random);
    set_memory(&spec, chosen[3]);
    spec.num_parts = kParts[chosen[4]];
    spec.page_size = kPages[chosen[5]];
    spec.joint_q = (chosen[6] & 1) != 0, spec.joint_cache = (chosen[6] & 2) != 0;
    spec.dtype = kTypes[chosen[7]];
    spec.poison = kPoisons[chosen[8]];
    spec.causal = chosen[9] == 0;
    specs.push_back(std::move(spec));
  }
  return specs;
}

// Few rows of long contexts, many of short ones.
std::int64_t rows_to_compare(const ProblemSpec& spec) {
  const std::int32_t longest = std::max(1, *std::max_element(spec.lengths.begin(), spec.lengths.end()));
  return std::clamp<std::int64_t>(60000 / longest, 16, 200);
}

constexpr int kSlices = 8;
class DecodeGrid : public testing::TestWithParam<int> {};

TEST_P(DecodeGrid, MatchesTheReference) {
  const std::vector<ProblemSpec> specs = grid();
  EXPECT_LE(specs.size(), 400u);
  for (std::size_t i = static_cast<std::size_t>(GetParam()); i < specs.size(); i += kSlices) {
    Problem problem(specs[i]);
    EXPECT_TRUE(runs_right(problem, rows_to_compare(specs[i])));
  }
}

INSTANTIATE_TEST_SUITE_P(Slices, DecodeGrid, testing::Range(0, kSlices));

// Nothing to do, in every way.
TEST(DecodeCorners, EmptyBatch) {
  for (const bool ragged : {false, true}) {
    ProblemSpec spec;
    spec.ragged = ragged, spec.spare_pages = 0;
    Problem problem(spec);
    EXPECT_TRUE(runs_right(problem));
    spec.padding_queries = ragged ? 2 : 0;
    Problem padded(spec);
    EXPECT_TRUE(runs_right(padded));
  }
}

TEST(DecodeCorners, RaggedWithoutAnyQuery) {
  ProblemSpec spec;
  spec.lengths = {100, 0, 7}, spec.ragged = true, spec.queries = {0, 0, 0};
  Problem problem(spec);
  EXPECT_TRUE(runs_right(problem));
}

TEST(DecodeCorners, LargePages) {
  for (const std::int32_t page_size : {192, 256, 1024}) {
    ProblemSpec spec;
    spec.lengths = {1, 191, 193, 1500}, spec.page_size = page_size, spec.seqlen_q = 2;
    Problem problem(spec);
    EXPECT_TRUE(runs_right(problem));
  }
}

// A plan serves smaller steps: fewer requests, fewer queries.
TEST(DecodeCorners, BoundsAreUpperBounds) {
  ProblemSpec spec;
  spec.lengths = {300, 0, 70}, spec.seqlen_q = 2;
  Problem problem(spec);
  PlanConfig config = problem.plan_config();
  config.max_batch = 50, config.max_seqlen_q = 7;
  Step step(config);
  ASSERT_TRUE(step.schedule(problem.schedule_args()).ok());
  ASSERT_TRUE(step.decode(problem.decode_args()).ok());
  EXPECT_TRUE(is_right(problem));
}

// One schedule, many layers.
TEST(DecodeCorners, LayersShareASchedule) {
  ProblemSpec spec;
  spec.lengths = {500, 3, 130}, spec.num_parts = 5;
  Problem first(spec);
  Step step(first.plan_config());
  ASSERT_TRUE(step.schedule(first.schedule_args()).ok());
  for (std::uint64_t layer = 1; layer <= 3; ++layer) {
    spec.seed = layer;
    Problem problem(spec);
    ASSERT_TRUE(step.decode(problem.decode_args()).ok());
    EXPECT_TRUE(is_right(problem));
  }
}

}  // namespace
}  // namespace flash_mla::test
