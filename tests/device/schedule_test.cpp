// The scheduler on the device gives the host's bytes: random works of every kind, large batches, lengths that change
// under a captured graph.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "core/backend.h"
#include "cuda/schedule_kernel.h"
#include "device/gpu.h"
#include "unit/schedule/schedule_fixture.h"

namespace flash_mla::testing {
namespace {

using test::DeviceMemory;

Plan plan_of(const Step& step, std::int32_t num_parts) {
  Plan plan;
  PlanConfig& config = PlanAccess::config(plan);
  config.num_heads_kv = step.num_heads_kv;
  config.num_heads_q = step.num_heads_kv * step.heads_per_kv;
  config.causal = step.causal;
  PlanTuning tuning;
  tuning.num_parts = num_parts;
  tuning.rows_per_unit = step.rows_per_unit;
  tuning.cost_fixed = step.cost.fixed, tuning.cost_block = step.cost.per_block, tuning.cost_merge = step.cost.merge;
  tuning.cost_partial = step.cost.partial, tuning.few_blocks = step.cost.few_blocks;
  PlanAccess::set_tuning(plan, tuning);
  return plan;
}

// A step's lengths and its schedule on the device.
class DeviceSchedule {
 public:
  DeviceSchedule(Step& step, std::int32_t num_parts)
      : plan_(plan_of(step, num_parts)),
        lengths_(test::uploaded(step.lengths)),
        memory_(ScheduleLayout{num_parts}.total_bytes() + kGuardBytes) {
    const Work work = step.work();
    batch_.batch = work.batch;
    batch_.seqlen_q = work.seqlen_q;
    batch_.cache_seqlens = static_cast<const std::int32_t*>(lengths_.data());
    if (work.cu_seqlens_q != nullptr) {
      queries_.push_back(test::uploaded(step.cu_seqlens_q));
      batch_.cu_seqlens_q = static_cast<const std::int32_t*>(queries_.back().data());
    }
    memory_.fill(0x33);
    FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  }

  void launch(cudaStream_t stream) {
    const Status status = cuda::launch_schedule(plan_, batch_, memory_.data(), stream);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  void change_lengths(const std::vector<std::int32_t>& lengths) { lengths_.upload(lengths.data()); }

  // The schedule; nothing may be written behind it.
  std::vector<char> fetch() const {
    FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
    auto bytes = test::downloaded<char>(memory_);
    for (int i = 0; i < kGuardBytes; ++i) {
      EXPECT_EQ(bytes.back(), 0x33) << "written behind the schedule";
      bytes.pop_back();
    }
    return bytes;
  }

 private:
  static constexpr int kGuardBytes = 64;
  Plan plan_;
  DeviceMemory lengths_;
  std::vector<DeviceMemory> queries_;
  DeviceMemory memory_;
  BatchView batch_;
};

void check_equal(Step& step, std::int32_t num_parts, cudaStream_t stream) {
  DeviceSchedule schedule(step, num_parts);
  schedule.launch(stream);
  ASSERT_TRUE(schedule.fetch() == make(step.work(), step.cost, num_parts).memory) << describe(step, num_parts);
}

class ScheduleKernel : public ::testing::Test {
 protected:
  void SetUp() override { FLASH_MLA_REQUIRE(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  void TearDown() override { cudaStreamDestroy(stream_); }
  cudaStream_t stream_ = nullptr;
};

TEST_F(ScheduleKernel, EqualsTheHostOnRandomSteps) {
  std::mt19937 random(1);
  for (std::int32_t num_parts : {1, 2, 3, 14, 78, 114, 132, 144, 200, 510, 511, 512, 513, 1200}) {
    for (int round = 0; round < 100; ++round) {
      Step step = draw_step(random, static_cast<std::int32_t>(random() % (round % 2 ? 20 : 400)));
      check_equal(step, num_parts, stream_);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(ScheduleKernel, EqualsTheHostOnLargeBatches) {
  std::mt19937 random(2);
  for (std::int32_t batch : {511, 512, 513, 1023, 1024, 1025, 2500, 12000, 16384, 16385, 20000, 70000}) {
    for (std::int32_t num_parts : {1, 132, 600}) {
      Step step = draw_step(random, batch);
      step.seqlen_q = 2;
      for (std::int32_t& queries : step.queries) queries %= 3;
      check_equal(step, num_parts, stream_);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(ScheduleKernel, NegativeAndLongestLengths) {
  Step step{.lengths = {-5, 200, std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max()},
            .queries = {}};
  check_equal(step, 132, stream_);
}

TEST_F(ScheduleKernel, AStrideBetweenLengthsIsHonoured) {
  const std::vector<std::int32_t> strided = {10, -1, 900, -1, 30, -1, 7000};
  Step packed{.lengths = {10, 900, 30, 7000}, .queries = {}};
  const DeviceMemory lengths = test::uploaded(strided);
  DeviceMemory memory(ScheduleLayout{14}.total_bytes());
  BatchView batch;
  batch.batch = 4, batch.seqlen_q = 1;
  batch.cache_seqlens = static_cast<const std::int32_t*>(lengths.data()), batch.cache_seqlens_stride = 2;
  const Status status = cuda::launch_schedule(plan_of(packed, 14), batch, memory.data(), stream_);
  ASSERT_TRUE(status.ok()) << status.message();
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  EXPECT_TRUE(test::downloaded<char>(memory) == make(packed.work(), packed.cost, 14).memory);
}

cudaGraphExec_t captured(DeviceSchedule& schedule, int launches, cudaStream_t stream) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t graph_exec = nullptr;
  FLASH_MLA_REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < launches; ++i) schedule.launch(stream);
  FLASH_MLA_REQUIRE(cudaStreamEndCapture(stream, &graph));
  FLASH_MLA_REQUIRE(cudaGraphInstantiate(&graph_exec, graph, 0));
  FLASH_MLA_REQUIRE(cudaGraphDestroy(graph));
  return graph_exec;
}

TEST_F(ScheduleKernel, ACapturedGraphFollowsTheLengths) {
  std::mt19937 random(3);
  Step step{.lengths = std::vector<std::int32_t>(64, 1), .queries = {}};
  DeviceSchedule schedule(step, 132);
  const cudaGraphExec_t graph = captured(schedule, 1, stream_);
  for (int round = 0; round < 50; ++round) {
    step.lengths = draw_lengths(random, 64, kAllLengths[round % std::size(kAllLengths)]);
    schedule.change_lengths(step.lengths);
    FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
    FLASH_MLA_REQUIRE(cudaGraphLaunch(graph, stream_));
    ASSERT_TRUE(schedule.fetch() == make(step.work(), step.cost, 132).memory) << "round " << round;
  }
  FLASH_MLA_REQUIRE(cudaGraphExecDestroy(graph));
}

// Back to back within a graph, so launches overlap with nothing but each other. Recorded; machines differ.
TEST_F(ScheduleKernel, TimeOfAStep) {
  constexpr int kLaunches = 200;
  std::mt19937 random(4);
  cudaEvent_t start = nullptr, stop = nullptr;
  FLASH_MLA_REQUIRE(cudaEventCreate(&start));
  FLASH_MLA_REQUIRE(cudaEventCreate(&stop));
  constexpr std::pair<std::int32_t, std::int32_t> kSteps[] = {
      {1, 132}, {64, 132}, {128, 66}, {256, 66}, {256, 132}, {256, 264}, {512, 132}, {2048, 132}, {70000, 132}};
  for (const auto& [batch, parts] : kSteps) {
    Step step{.lengths = draw_lengths(random, batch, Lengths::heavy_tail), .queries = {}};
    step.cost.partial = 10;
    DeviceSchedule schedule(step, parts);
    const cudaGraphExec_t graph = captured(schedule, kLaunches, stream_);
    float best_ms = 1e9f;
    for (int round = 0; round < 5; ++round) {
      float ms = 0;
      FLASH_MLA_REQUIRE(cudaEventRecord(start, stream_));
      FLASH_MLA_REQUIRE(cudaGraphLaunch(graph, stream_));
      FLASH_MLA_REQUIRE(cudaEventRecord(stop, stream_));
      FLASH_MLA_REQUIRE(cudaEventSynchronize(stop));
      FLASH_MLA_REQUIRE(cudaEventElapsedTime(&ms, start, stop));
      best_ms = std::min(best_ms, ms);
    }
    FLASH_MLA_REQUIRE(cudaGraphExecDestroy(graph));
    const float us = best_ms * 1000 / kLaunches;
    std::printf("[          ] batch %6d, %4d parts: %.2f us\n", batch, parts, us);
    RecordProperty("us_for_batch_" + std::to_string(batch) + "_parts_" + std::to_string(parts), std::to_string(us));
  }
  FLASH_MLA_REQUIRE(cudaEventDestroy(start));
  FLASH_MLA_REQUIRE(cudaEventDestroy(stop));
}

}  // namespace
}  // namespace flash_mla::testing
