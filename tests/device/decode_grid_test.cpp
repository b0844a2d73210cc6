// Decoding on the GPU over a pairwise-covering grid of shapes, layouts and types, with hostile memory, each case
// against the fp64 reference within the bound of docs/conventions.md.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "device/device_step.h"
#include "reference/pairwise.h"

namespace flash_mla::test {
namespace {

using reference::Poison;
using reference::Problem;
using reference::ProblemSpec;
using reference::Random;

constexpr int kBatches[] = {1, 2, 6, 64, 128};
constexpr int kQueries[] = {1, 2, 3, 4, 7, 0};  // 0: ragged
constexpr int kLengths[] = {0, 1, 20, 64, 65, 140, 4096};
constexpr int kPages[] = {16, 32, 64, 128};
constexpr int kParts[] = {0, 1, 7, 40};
constexpr int kMostTokens = 1 << 15;  // of a case, so that its tensors are made in a second

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

const std::vector<std::vector<int>>& grid() {
  static const std::vector<std::vector<int>> cases = reference::pairwise_cases(
      {std::size(kBatches), std::size(kQueries), std::size(kLengths), 2, static_cast<int>(head_counts().size()),
       std::size(kPages), std::size(kParts), 2, 2, 2, 2, 3},
      7);
  return cases;
}

ProblemSpec spec_of(int index) {
  const std::vector<int>& pick = grid()[static_cast<std::size_t>(index)];
  Random random(static_cast<std::uint64_t>(index) + 1);
  ProblemSpec spec;
  spec.seed = static_cast<std::uint64_t>(index) + 100;
  const int length = kLengths[pick[2]];
  const int batch = std::min(kBatches[pick[0]], std::max(kMostTokens / std::max(length, 1), 1));
  for (int r = 0; r < batch; ++r) {
    spec.lengths.push_back(pick[3] ? static_cast<std::int32_t>(random.between(0, length)) : length);
  }
  const int queries = kQueries[pick[1]];
  if (queries == 0) {
    spec.ragged = true;
    for (int r = 0; r < batch; ++r) spec.queries.push_back(static_cast<std::int32_t>(random.between(0, 4)));
    spec.queries.back() = 1;
    spec.padding_queries = index % 3;
  } else {
    spec.seqlen_q = queries;
  }
  std::tie(spec.num_heads_q, spec.num_heads_kv) = head_counts()[static_cast<std::size_t>(pick[4])];
  spec.page_size = kPages[pick[5]];
  spec.num_parts = kParts[pick[6]];
  spec.causal = pick[7] == 0;
  spec.dtype = pick[8] ? DType::f16 : DType::bf16;
  spec.joint_q = pick[9] == 0;
  spec.joint_cache = pick[10] == 0;
  if (pick[11] >= 1) spec.row_gap = 8, spec.offset_elements = 16;
  if (pick[11] == 1) spec.layers = 3;
  if (pick[11] == 2) spec.heads_first = true;
  spec.exact_table = index % 2 == 0;
  spec.want_lse = index % 7 != 0;
  spec.poison = Poison::mixed;
  return spec;
}

class DecodeGrid : public testing::TestWithParam<int> {};

TEST_P(DecodeGrid, IsRight) {
  Problem problem(spec_of(GetParam()));
  EXPECT_TRUE(runs_right(problem, 40));
}

INSTANTIATE_TEST_SUITE_P(Pairwise, DecodeGrid, testing::Range(0, static_cast<int>(grid().size())));

}  // namespace
}  // namespace flash_mla::test
