// Small steps that between them reach every path of every kernel, for compute-sanitizer, under which a kernel takes
// some hundred times as long. All memory that kernels read is made on the host.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "device/device_step.h"
#include "flash_mla/flash_mla.h"

namespace flash_mla::test {
namespace {

using reference::Problem;
using reference::ProblemSpec;

constexpr std::int64_t kRows = 30;
// With one query token each: units of up to 16, up to 32 and more rows have kernels of their own.
constexpr std::int32_t kHeadsOfKernels[] = {16, 32, 64};

ProblemSpec small_spec(DType dtype) {
  ProblemSpec spec;
  spec.dtype = dtype, spec.lengths = {200, 0, 65}, spec.num_parts = 3;
  return spec;
}

class SanitizePaths : public testing::TestWithParam<DType> {
 protected:
  void check(const ProblemSpec& spec) {
    Problem problem(spec);
    EXPECT_TRUE(runs_right(problem, kRows));
  }
};

// Boxes of pages shorter than, as long as and longer than a block, joint and apart.
TEST_P(SanitizePaths, Pages) {
  for (const std::int32_t heads : kHeadsOfKernels) {
    for (const std::int32_t page_size : {16, 32, 64, 128}) {
      ProblemSpec spec = small_spec(GetParam());
      spec.num_heads_q = heads, spec.page_size = page_size;
      spec.joint_cache = spec.joint_q = page_size % 64 != 0;
      check(spec);
    }
  }
}

// Queries as one box, as boxes of whole tokens, of periods, and gathered.
TEST_P(SanitizePaths, Queries) {
  for (const auto& [heads, heads_kv, queries] :
       {std::tuple{16, 1, 1}, {16, 1, 3}, {128, 2, 2}, {9, 3, 2}, {20, 2, 3}, {126, 2, 2}, {128, 1, 3}}) {
    ProblemSpec spec = small_spec(GetParam());
    spec.num_heads_q = heads, spec.num_heads_kv = heads_kv, spec.seqlen_q = queries;
    check(spec);
  }
}

// Large steps of the running maximum, so that accumulators are rescaled.
TEST_P(SanitizePaths, Rescaling) {
  for (const std::int32_t heads : kHeadsOfKernels) {
    ProblemSpec spec = small_spec(GetParam());
    spec.lengths = {640}, spec.q_scale = 30, spec.num_heads_q = heads;
    check(spec);
  }
}

// One unit in many splits: several warps of the merge share a row.
TEST_P(SanitizePaths, ManySplits) {
  ProblemSpec spec = small_spec(GetParam());
  spec.lengths = {64 * 20 + 5}, spec.num_parts = 16, spec.num_heads_q = 4;
  check(spec);
  spec.num_heads_q = 128;
  check(spec);
}

// Few units: in up to 2, 4, 8 and more splits.
TEST_P(SanitizePaths, SmallSteps) {
  for (const std::int32_t heads : {5, 32}) {
    ProblemSpec spec = small_spec(GetParam());
    spec.lengths = {120, 0, 250, 500, 1300}, spec.num_parts = 40, spec.num_heads_q = heads;
    check(spec);
  }
}

TEST_P(SanitizePaths, RaggedAndPadded) {
  ProblemSpec spec = small_spec(GetParam());
  spec.ragged = true, spec.queries = {2, 0, 3}, spec.padding_queries = 5, spec.row_gap = 8, spec.want_lse = false;
  check(spec);
  spec.causal = false, spec.want_lse = true;
  check(spec);
}

// Requests past those that were scheduled.
TEST_P(SanitizePaths, PaddedBatch) {
  Problem problem(small_spec(GetParam()));
  auto* lengths = static_cast<std::int32_t*>(problem.decode_args().cache_seqlens.data);
  lengths[1] = lengths[2] = 0;
  problem.accept_inputs();
  problem.clear_results();
  DeviceStep step(problem, 3);
  step.schedule_args().cache_seqlens.shape[0] = 1;
  ASSERT_TRUE(step.schedule().ok());
  ASSERT_TRUE(step.decode().ok());
  step.fetch_results();
  EXPECT_TRUE(is_right(problem, kRows));
}

INSTANTIATE_TEST_SUITE_P(Types, SanitizePaths, testing::Values(DType::bf16, DType::f16),
                         [](const auto& info) { return to_string(info.param); });

// More requests than the scheduler has threads, more parts than that, and each rule of cutting.
TEST(Sanitize, Scheduler) {
  for (const auto& [batch, length, parts] :
       {std::tuple{1, 2000, 132}, {3, 70, 0}, {700, 20, 14}, {40, 300, 600}, {0, 0, 4}}) {
    ProblemSpec spec;
    spec.num_heads_q = 1, spec.page_size = 16, spec.num_parts = parts;
    for (int r = 0; r < batch; ++r) spec.lengths.push_back(r % 3 == 1 ? 0 : length);
    Problem problem(spec);
    EXPECT_TRUE(runs_right(problem, kRows));
  }
}

TEST(Sanitize, Merge) {
  constexpr std::int64_t kShards = 5, kMergedRows = 7;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    DeviceMemory partial_out(kShards * kMergedRows * kLatentDim * size_in_bytes(dtype));
    DeviceMemory partial_lse(kShards * kMergedRows * 4), out(kMergedRows * kLatentDim * 4), lse(kMergedRows * 4);
    partial_out.fill(0), partial_lse.fill(0), out.fill(0xff), lse.fill(0xff);
    const Device gpu = {DeviceType::cuda, 0};
    MergeArgs args;
    args.partial_out = TensorView::contiguous(partial_out.data(), dtype, {kShards, kMergedRows, kLatentDim}, gpu);
    args.partial_lse = TensorView::contiguous(partial_lse.data(), DType::f32, {kShards, kMergedRows}, gpu);
    args.out = TensorView::contiguous(out.data(), DType::f32, {kMergedRows, kLatentDim}, gpu);
    args.lse = TensorView::contiguous(lse.data(), DType::f32, {kMergedRows}, gpu);
    ASSERT_TRUE(merge(args).ok());
    FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
    for (const float x : downloaded<float>(out)) EXPECT_EQ(x, 0);
    for (const float x : downloaded<float>(lse)) EXPECT_NEAR(x, 1.6094379, 1e-6);  // ln 5
  }
}

TEST(Sanitize, CopyPages) {
  constexpr std::int64_t kPages = 6, kPageElements = 32 * kHeadDim;
  std::vector<std::uint16_t> cache(kPages * kPageElements);
  for (std::size_t i = 0; i < cache.size(); ++i) cache[i] = static_cast<std::uint16_t>(i * 40503 >> 7);
  const DeviceMemory memory = uploaded(cache), pairs = uploaded(std::vector<std::int64_t>{4, 1, 0, 5});
  const Device gpu = {DeviceType::cuda, 0};
  const Status status = copy_pages(TensorView::contiguous(memory.data(), DType::bf16, {kPages, 32, 1, kHeadDim}, gpu),
                                   TensorView::contiguous(pairs.data(), DType::i64, {2, 2}, gpu));
  ASSERT_TRUE(status.ok()) << status.message();
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  std::memcpy(&cache[1 * kPageElements], &cache[4 * kPageElements], kPageElements * 2);
  std::memcpy(&cache[5 * kPageElements], &cache[0], kPageElements * 2);
  EXPECT_TRUE(downloaded<std::uint16_t>(memory) == cache);
}

}  // namespace
}  // namespace flash_mla::test
