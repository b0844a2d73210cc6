// Decoding on the GPU over a pairwise-covering set of shapes, layouts and types, and over all combinations of their
// extremes, with hostile memory, each case against the fp64 reference within the bound of docs/conventions.md.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include "device/device_problem.h"
#include "reference/pairwise.h"

namespace flash_mla::test {
namespace {

using reference::ProblemSpec;
using reference::Random;

constexpr int kRagged = 0;
constexpr int kBatches[] = {1, 2, 6, 64, 128};
constexpr int kQueries[] = {1, 2, 3, 4, 7, kRagged};
constexpr int kLengths[] = {0, 1, 20, 64, 65, 140, 4096};
constexpr int kPages[] = {16, 32, 64, 128};
constexpr int kParts[] = {0, 1, 7, 40};
constexpr std::int64_t kRows = 1000;  // compared of a case

const std::vector<std::pair<int, int>>& head_counts() {
  static const std::vector<std::pair<int, int>> pairs = [] {
    std::vector<std::pair<int, int>> all;
    for (const int h_q : {1, 3, 9, 16, 63, 64, 100, 126, 128}) {
      for (const int h_kv : {1, 2, 3, 8}) {
        if (h_q % h_kv == 0) all.emplace_back(h_q, h_kv);
      }
    }
    return all;
  }();
  return pairs;
}

// Lengths are `length` each, or anything up to it.
void set_requests(ProblemSpec* spec, int batch, int queries, int length, bool varying, Random& random) {
  for (int r = 0; r < batch; ++r) {
    spec->lengths.push_back(varying ? static_cast<std::int32_t>(random.between(0, length)) : length);
  }
  if (varying) spec->lengths[static_cast<std::size_t>(random.below(batch))] = length;
  spec->ragged = queries == kRagged;
  spec->seqlen_q = std::max(queries, 1);
  if (!spec->ragged) return;
  for (int r = 0; r < batch; ++r) spec->queries.push_back(static_cast<std::int32_t>(random.between(0, 4)));
  spec->padding_queries = static_cast<std::int32_t>(random.between(0, 3));
}

void set_layout(ProblemSpec* spec, int layout) {
  if (layout >= 1) spec->row_gap = 8, spec->offset_elements = 16;
  if (layout == 1) spec->layers = 3;
  if (layout == 2) spec->heads_first = true;
}

std::vector<ProblemSpec> pairwise() {
  const auto cases = reference::pairwise_cases(
      {std::size(kBatches), std::size(kQueries), std::size(kLengths), 2, static_cast<int>(head_counts().size()),
       std::size(kPages), std::size(kParts), 2, 2, 2, 2, 3},
      7);
  std::vector<ProblemSpec> specs;
  for (const std::vector<int>& pick : cases) {
    ProblemSpec spec;
    spec.seed = specs.size() + 100;
    Random random(spec.seed);
    set_requests(&spec, kBatches[pick[0]], kQueries[pick[1]], kLengths[pick[2]], pick[3] == 1, random);
    std::tie(spec.num_heads_q, spec.num_heads_kv) = head_counts()[static_cast<std::size_t>(pick[4])];
    spec.page_size = kPages[pick[5]];
    spec.num_parts = kParts[pick[6]];
    spec.causal = pick[7] == 0;
    spec.dtype = pick[8] == 0 ? DType::bf16 : DType::f16;
    spec.joint_q = pick[9] == 0, spec.joint_cache = pick[10] == 0;
    set_layout(&spec, pick[11]);
    spec.exact_table = random.below(2) == 0;
    spec.want_lse = random.below(7) != 0;
    specs.push_back(std::move(spec));
  }
  return specs;
}

// Least and most of every dimension, all combined.
std::vector<ProblemSpec> corners() {
  std::vector<ProblemSpec> specs;
  for (const int batch : {1, 128}) {
    for (const int queries : {1, 7, kRagged}) {
      for (const int length : {0, 1, 4096}) {
        for (const auto& [h_q, h_kv] : {std::pair{1, 1}, {128, 1}, {128, 8}}) {
          for (const int page : {16, 128}) {
            for (const int bits : {0, 1, 2, 3}) {
              ProblemSpec spec;
              spec.seed = specs.size() + 1000;
              Random random(spec.seed);
              set_requests(&spec, batch, queries, length, false, random);
              spec.num_heads_q = h_q, spec.num_heads_kv = h_kv, spec.page_size = page;
              spec.causal = (bits & 1) == 0;
              spec.dtype = (bits & 2) == 0 ? DType::bf16 : DType::f16;
              // Joint and separate tensors take turns.
              spec.joint_q = random.below(2) == 0, spec.joint_cache = random.below(2) == 0;
              specs.push_back(std::move(spec));
            }
          }
        }
      }
    }
  }
  return specs;
}

// A few hundred cases make one test, so that the report stays short; a failing case says what it is.
void check(const std::vector<ProblemSpec>& specs, int slice, int slices) {
  for (std::size_t i = static_cast<std::size_t>(slice); i < specs.size(); i += static_cast<std::size_t>(slices)) {
    DeviceProblem problem(specs[i]);
    EXPECT_TRUE(problem.runs_right(kRows)) << "case " << i;
  }
}

constexpr int kSlices = 10;
class DecodeGrid : public testing::TestWithParam<int> {};

TEST_P(DecodeGrid, PairwiseIsRight) {
  static const std::vector<ProblemSpec> specs = pairwise();
  ASSERT_LE(specs.size() + corners().size(), 2000u);
  check(specs, GetParam(), kSlices);
}

TEST_P(DecodeGrid, CornersAreRight) {
  static const std::vector<ProblemSpec> specs = corners();
  check(specs, GetParam(), kSlices);
}

INSTANTIATE_TEST_SUITE_P(Slices, DecodeGrid, testing::Range(0, kSlices));

}  // namespace
}  // namespace flash_mla::test
