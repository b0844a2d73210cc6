// What went wrong in production kernels and only a GPU can show: graphs, lengths that change under way, padding,
// offsets beyond 32 bits, NaN, many requests.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "device/device_step.h"
#include "reference/compare.h"
#include "reference/float_format.h"

namespace flash_mla::test {
namespace {

using reference::Problem;
using reference::ProblemSpec;
using reference::RowId;

using Lengths = std::vector<std::int32_t>;

// A graph of one stream's work.
class Graph {
 public:
  explicit Graph(Stream stream) : stream_(static_cast<cudaStream_t>(stream.handle)) {
    FLASH_MLA_REQUIRE(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  }
  void end() {
    cudaGraph_t graph = nullptr;
    FLASH_MLA_REQUIRE(cudaStreamEndCapture(stream_, &graph));
    FLASH_MLA_REQUIRE(cudaGraphInstantiate(&exec_, graph, 0));
    FLASH_MLA_REQUIRE(cudaGraphDestroy(graph));
  }
  ~Graph() {
    if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
  }
  void replay() { FLASH_MLA_REQUIRE(cudaGraphLaunch(exec_, stream_)); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t exec_ = nullptr;
};

void set_lengths(Problem& problem, const Lengths& lengths) {
  std::memcpy(problem.decode_args().cache_seqlens.data, lengths.data(), lengths.size() * sizeof(std::int32_t));
  problem.accept_inputs();
}

// Room for these lengths in pages and table.
ProblemSpec roomy_spec(int heads) {
  ProblemSpec spec;
  spec.lengths = {2000, 600, 1000, 700, 4096};
  spec.num_heads_q = heads;
  spec.seqlen_q = 2;
  return spec;
}

const std::vector<Lengths>& later_lengths() {
  static const std::vector<Lengths> all = {{1, 1, 1, 1, 1},     {2000, 600, 1000, 700, 4096}, {0, 0, 0, 0, 0},
                                           {0, 65, 0, 1, 4096}, {64, 128, 192, 256, 320},     {3, 0, 999, 0, 0}};
  return all;
}

TEST(DecodeGraph, FollowsTheLengths) {
  for (const int heads : {16, 128}) {
    Problem problem(roomy_spec(heads));
    set_lengths(problem, later_lengths()[0]);
    DeviceStep step(problem);
    Graph graph(step.stream());
    ASSERT_TRUE(step.schedule().ok());
    ASSERT_TRUE(step.decode().ok());
    graph.end();
    for (const Lengths& lengths : later_lengths()) {
      set_lengths(problem, lengths);
      problem.clear_results();
      step.upload();
      graph.replay();
      step.fetch_results();
      EXPECT_TRUE(is_right(problem, 60)) << testing::PrintToString(lengths);
    }
  }
}

// A batch captured with 5 requests runs with a schedule made for fewer; the rest is padding.
TEST(DecodeGraph, PaddedBatch) {
  Problem problem(roomy_spec(16));
  set_lengths(problem, {2000, 600, 0, 0, 0});
  DeviceStep step(problem);
  for (const int present : {2, 1, 0, 5}) {
    problem.clear_results();
    set_lengths(problem, {present > 0 ? 2000 : 0, present > 1 ? 600 : 0, 0, 0, 0});
    step.upload();
    const TensorView all = step.schedule_args().cache_seqlens;
    step.schedule_args().cache_seqlens.shape[0] = present;
    const Status status = step.schedule();
    ASSERT_TRUE(status.ok()) << status.message();
    step.schedule_args().cache_seqlens = all;
    ASSERT_TRUE(step.decode().ok());
    step.fetch_results();
    EXPECT_TRUE(is_right(problem)) << present;
  }
}

// Lengths, schedule and decode one behind the other without waiting: every step must see its own lengths.
TEST(DecodeRepeat, BackToBackWithChangingLengths) {
  constexpr int kRounds = 300;
  Problem problem(roomy_spec(16));
  DeviceStep step(problem);
  const auto* stream = static_cast<cudaStream_t>(step.stream().handle);
  const reference::Buffer& out = problem.buffers()[problem.buffers().size() - 2];
  const std::size_t out_bytes = static_cast<std::size_t>(out.bytes());

  std::vector<std::vector<std::byte>> expected;
  std::vector<DeviceMemory> lengths;
  for (const Lengths& each : later_lengths()) {
    set_lengths(problem, each);
    problem.clear_results();
    step.upload();
    ASSERT_TRUE(step.schedule().ok());
    ASSERT_TRUE(step.decode().ok());
    step.fetch_results();
    expected.emplace_back(out.data(), out.data() + out_bytes);
    lengths.push_back(uploaded(each));
  }
  DeviceMemory log(static_cast<std::int64_t>(out_bytes) * kRounds);
  for (int i = 0; i < kRounds; ++i) {
    const std::size_t which = static_cast<std::size_t>(i * 7 % 6);
    FLASH_MLA_REQUIRE(cudaMemcpyAsync(step.args().cache_seqlens.data, lengths[which].data(), 5 * 4,
                                      cudaMemcpyDeviceToDevice, const_cast<cudaStream_t>(stream)));
    ASSERT_TRUE(step.schedule().ok());
    ASSERT_TRUE(step.decode().ok());
    FLASH_MLA_REQUIRE(cudaMemcpyAsync(static_cast<char*>(log.data()) + out_bytes * static_cast<std::size_t>(i),
                                      step.args().out.data, out_bytes, cudaMemcpyDeviceToDevice,
                                      const_cast<cudaStream_t>(stream)));
  }
  step.synchronize();
  const auto got = downloaded<std::byte>(log);
  for (int i = 0; i < kRounds; ++i) {
    const auto& want = expected[static_cast<std::size_t>(i * 7 % 6)];
    ASSERT_EQ(0, std::memcmp(want.data(), got.data() + out_bytes * static_cast<std::size_t>(i), out_bytes)) << i;
  }
}

// Pages 2^31 elements apart.
TEST(Decode, OffsetsBeyond32Bits) {
  constexpr std::int64_t kPageStride = std::int64_t{1} << 31;
  ProblemSpec spec;
  spec.lengths = {100, 64};
  spec.spare_pages = 0;
  Problem problem(spec);
  const std::int64_t pages = problem.num_pages(), bytes = (pages * kPageStride) * 2;
  std::size_t free = 0, total = 0;
  FLASH_MLA_REQUIRE(cudaMemGetInfo(&free, &total));
  if (static_cast<std::int64_t>(free) < bytes + (1 << 28)) GTEST_SKIP() << "needs " << bytes << " free bytes";
  problem.clear_results();
  DeviceStep step(problem);
  const DeviceMemory far(bytes);
  TensorView& cache = step.args().kv_cache;
  for (std::int64_t page = 0; page < pages; ++page) {
    FLASH_MLA_REQUIRE(cudaMemcpy(static_cast<char*>(far.data()) + page * kPageStride * 2,
                                 static_cast<char*>(cache.data) + page * cache.strides[0] * 2,
                                 static_cast<std::size_t>(cache.strides[0] * 2), cudaMemcpyDeviceToDevice));
  }
  cache.data = far.data();
  cache.strides[0] = kPageStride;
  ASSERT_TRUE(step.schedule().ok());
  const Status status = step.decode();
  ASSERT_TRUE(status.ok()) << status.message();
  step.fetch_results();
  EXPECT_TRUE(is_right(problem));
}

TEST(Decode, MoreRequestsThanAGridDimension) {
  ProblemSpec spec;
  spec.lengths.assign(70000, 0);
  for (std::size_t r = 0; r < spec.lengths.size(); r += 50) spec.lengths[r] = static_cast<std::int32_t>(r % 3 + 1);
  spec.num_heads_q = 2;
  spec.page_size = 16;
  Problem problem(spec);
  EXPECT_TRUE(runs_right(problem, 300));
}

// NaN in a cached token: every row that sees it is NaN, no other request is touched.
TEST(Decode, NanInATokenStaysInItsRequest) {
  ProblemSpec spec;
  spec.lengths = {300, 200, 100};
  spec.seqlen_q = 3;
  spec.num_heads_q = 16;
  Problem problem(spec);
  const DecodeArgs& args = problem.decode_args();
  const auto* table = static_cast<const std::int32_t*>(args.block_table.data);
  const std::int32_t page = table[args.block_table.strides[0] + 70 / 64];
  const std::int64_t at = page * args.kv_cache.strides[0] + 70 % 64 * args.kv_cache.strides[1] + 33;
  reference::store_element(args.kv_cache.dtype, static_cast<std::byte*>(args.kv_cache.data) + at * 2,
                           std::numeric_limits<double>::quiet_NaN());
  problem.accept_inputs();
  ASSERT_TRUE(run(problem, 0));
  std::vector<RowId> others;
  reference::Reference reference(args, spec.causal);
  for (const RowId& id : reference.all_rows()) {
    if (id.request != 1) {
      others.push_back(id);
      continue;
    }
    const reference::Row row = reference.result(id);
    EXPECT_TRUE(std::isnan(row.lse)) << id.query << ' ' << id.head;
    for (const double x : row.out) ASSERT_TRUE(std::isnan(x));
  }
  const reference::Comparison rest = reference::compare_rows(args, spec.causal, others);
  EXPECT_TRUE(rest.ok) << rest.message;
}

// A later token never changes an earlier query's row, not in a single bit.
TEST(Decode, LaterTokensDoNotChangeEarlierRows) {
  for (const int queries : {2, 3, 5, 7, 9}) {
    ProblemSpec spec;
    spec.lengths = {150};
    spec.seqlen_q = queries;
    spec.num_heads_q = 8;
    spec.num_parts = 1;
    Problem problem(spec);
    const DecodeArgs& args = problem.decode_args();
    ASSERT_TRUE(run(problem, 1));
    ASSERT_TRUE(is_right(problem));
    const std::size_t earlier_bytes = static_cast<std::size_t>((queries - 1) * args.out.strides[1] * 2);
    const auto* out = static_cast<const std::byte*>(args.out.data);
    const std::vector<std::byte> before(out, out + earlier_bytes);
    const auto* table = static_cast<const std::int32_t*>(args.block_table.data);
    for (int column = 0; column < 576; ++column) {  // the last token, made to dominate
      const std::int64_t at = table[149 / 64] * args.kv_cache.strides[0] + 149 % 64 * args.kv_cache.strides[1] + column;
      reference::store_element(args.kv_cache.dtype, static_cast<std::byte*>(args.kv_cache.data) + at * 2,
                               column % 2 ? 40. : -30.);
    }
    problem.accept_inputs();
    ASSERT_TRUE(run(problem, 1));
    EXPECT_EQ(0, std::memcmp(before.data(), out, earlier_bytes)) << queries;
    EXPECT_TRUE(is_right(problem));
  }
}

}  // namespace
}  // namespace flash_mla::test
