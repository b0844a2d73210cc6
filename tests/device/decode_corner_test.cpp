// Corners of decoding on the GPU: empty requests, extreme scores, NaN, row counts around 64, splits, repetition.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "device/device_count.h"
#include "device/device_problem.h"
#include "device/device_step.h"
#include "device/occupant.h"
#include "reference/float_format.h"

namespace flash_mla::test {
namespace {

using reference::Problem;
using reference::ProblemSpec;

ProblemSpec small_spec() {
  ProblemSpec spec;
  spec.lengths = {300, 65, 1};
  spec.num_heads_q = 16;
  return spec;
}

// The one that everything else builds on: whole units, no mask inside a block.
TEST(DecodeSanitize, OneBlock) {
  ProblemSpec spec = small_spec();
  spec.lengths = {64};
  spec.num_heads_q = 64;
  spec.num_parts = 1;
  Problem problem(spec);
  EXPECT_TRUE(runs_right(problem));
}

TEST(DecodeSanitize, SeveralBlocks) {
  ProblemSpec spec = small_spec();
  spec.lengths = {64 * 5};
  spec.num_heads_q = 64;
  spec.num_parts = 1;
  Problem problem(spec);
  EXPECT_TRUE(runs_right(problem));
}

TEST(DecodeSanitize, TailOfABlock) {
  Problem problem(small_spec());
  EXPECT_TRUE(runs_right(problem));
}

TEST(DecodeSanitize, Splits) {
  ProblemSpec spec = small_spec();
  spec.lengths = {1300, 20, 700};
  spec.num_heads_q = 128;
  spec.seqlen_q = 2;
  spec.num_parts = 7;
  Problem problem(spec);
  EXPECT_TRUE(runs_right(problem));
}

TEST(DecodeSanitize, GatheredQueries) {  // 3 heads a kv head and 2 queries: no box
  ProblemSpec spec = small_spec();
  spec.num_heads_q = 9;
  spec.num_heads_kv = 3;
  spec.seqlen_q = 2;
  Problem problem(spec);
  EXPECT_TRUE(runs_right(problem));
}

TEST(DecodeSanitize, RaggedWithPadding) {
  ProblemSpec spec = small_spec();
  spec.ragged = true;
  spec.queries = {3, 0, 2};
  spec.padding_queries = 4;
  spec.page_size = 16;
  Problem problem(spec);
  EXPECT_TRUE(runs_right(problem));
}

TEST(Decode, EmptyRequests) {
  for (const std::vector<std::int32_t>& lengths :
       {std::vector<std::int32_t>{0}, {0, 0, 0}, {0, 70, 0, 130, 0}, {70, 0, 0}}) {
    for (const int parts : {0, 1, 3}) {
      ProblemSpec spec = small_spec();
      spec.lengths = lengths;
      spec.num_parts = parts;
      Problem problem(spec);
      EXPECT_TRUE(runs_right(problem));
    }
  }
}

TEST(Decode, MoreQueriesThanTokens) {
  ProblemSpec spec = small_spec();
  spec.lengths = {3, 0, 1, 66};
  spec.seqlen_q = 7;
  Problem problem(spec);
  EXPECT_TRUE(runs_right(problem));
}

TEST(Decode, ManyRows) {  // several bundles, the last partly filled
  for (const int queries : {3, 5, 9}) {
    ProblemSpec spec = small_spec();
    spec.lengths = {200, 77};
    spec.seqlen_q = queries;
    spec.num_heads_q = 128;
    Problem problem(spec);
    EXPECT_TRUE(runs_right(problem, 200));
  }
}

TEST(Decode, ExtremeScores) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const float q_scale : {1e-4f, 30.f, 1e3f}) {
      ProblemSpec spec = small_spec();
      spec.dtype = dtype;
      spec.lengths = {1000, 130};
      spec.q_scale = q_scale;
      spec.num_parts = 3;
      Problem problem(spec);
      EXPECT_TRUE(runs_right(problem));
    }
  }
}

// A row with NaN in q is NaN, no other row is.
TEST(Decode, NanInAQueryStaysInItsRow) {
  ProblemSpec spec = small_spec();
  Problem problem(spec);
  const TensorView& q = problem.decode_args().q;
  const std::int64_t at = 1 * q.strides[0] + 5 * q.strides[2] + 100;
  reference::store_element(q.dtype, static_cast<std::byte*>(q.data) + at * 2, std::numeric_limits<double>::quiet_NaN());
  problem.accept_inputs();
  ASSERT_TRUE(run(problem, 0));
  EXPECT_TRUE(matches_reference(problem));
}

TEST(Decode, LargeBatches) {
  for (const int batch : {2500, 12000}) {
    ProblemSpec spec = small_spec();
    spec.lengths.assign(static_cast<std::size_t>(batch), 1);
    for (int r = 0; r < batch; r += 17) spec.lengths[static_cast<std::size_t>(r)] = r % 3 * 30;
    spec.num_heads_q = 1;
    Problem problem(spec);
    EXPECT_TRUE(runs_right(problem, 500));
  }
}

// More thread blocks than the GPU holds at a time: those that wait for partials must leave, or the others never begin.
// Who then merges must not show.
TEST(Decode, MoreThreadBlocksThanFit) {
  for (const std::int32_t heads : {4, 16, 32, 128}) {
    for (const std::int32_t parts : {200, 500}) {
      ProblemSpec spec = small_spec();
      spec.lengths = {20000, 9000, 70, 3000};
      spec.num_heads_q = heads;
      spec.num_parts = parts;
      DeviceProblem problem(spec);
      EXPECT_TRUE(problem.runs_right(100)) << heads << " heads, " << parts << " parts";
      const Snapshot expected = problem.snapshot();
      const DeviceCount count;
      for (int i = 0; i < 50; ++i) {
        problem.clear_results();
        problem.decode();
        problem.count_differing(expected, count);
      }
      EXPECT_EQ(count.fetch(problem.stream()), 0) << heads << " heads, " << parts << " parts";
    }
  }
}

// Other kernels leave a decode few multiprocessors, or one, so that its parts come one after the other and merge what
// others have left. That must not show.
TEST(Decode, OtherWorkOnTheGpuChangesNoBits) {
  for (const std::int32_t heads : {16, 32, 40, 128}) {
    for (const float q_scale : {1.f, 30.f}) {
      for (const DType dtype : {DType::bf16, DType::f16}) {
        ProblemSpec spec = small_spec();
        spec.lengths.clear();
        for (int r = 0; r < 50; ++r) spec.lengths.push_back(r % 11 == 5 ? 0 : 300 + r * 397 % 2000);
        spec.num_heads_q = heads, spec.seqlen_q = heads == 40 ? 3 : 1;
        spec.q_scale = q_scale, spec.dtype = dtype;
        DeviceProblem problem(spec);
        EXPECT_TRUE(problem.runs_right(100)) << heads << " heads";
        const Snapshot expected = problem.snapshot();
        const int all = Occupant::multiprocessors();
        // Many rows need two multiprocessors beside one another.
        for (const int left : {heads <= 32 ? 1 : all / 6, all / 2}) {
          const DeviceCount count;
          problem.count_differing(expected, count);  // nothing is loaded while the GPU is busy
          problem.synchronize();
          {
            const Occupant occupant(all - left);
            for (int i = 0; i < 3; ++i) {
              problem.clear_results();
              problem.decode();
              problem.count_differing(expected, count);
            }
            problem.synchronize();
          }
          EXPECT_EQ(count.fetch(problem.stream()), 0) << heads << " heads, " << left << " multiprocessors";
        }
      }
    }
  }
}

TEST(Decode, RefusesMorePartsThanItCounts) {
  PlanConfig config = Problem(small_spec()).plan_config();
  config.device = {DeviceType::cuda, 0};
  config.num_parts = 2047;
  EXPECT_TRUE(plan(config).ok());
  config.num_parts = 2048;
  const Status status = plan(config).status();
  EXPECT_EQ(status.code(), StatusCode::invalid_argument);
  EXPECT_NE(std::string(status.message()).find("config.num_parts is 2048; expected 0 to 2047"), std::string::npos)
      << status.message();
}

// Two decodes share the GPU; neither has all of its thread blocks there at a time.
TEST(Decode, TwoStreamsAtATime) {
  ProblemSpec spec = small_spec();
  spec.lengths = {20000, 9000, 70, 3000};
  DeviceProblem first(spec);
  spec.num_heads_q = 128;
  DeviceProblem second(spec);
  for (DeviceProblem* problem : {&first, &second}) EXPECT_TRUE(problem->runs_right(100));
  const Snapshot expected[2] = {first.snapshot(), second.snapshot()};
  const DeviceCount counts[2];
  for (int i = 0; i < 300; ++i) {
    first.clear_results(), second.clear_results();
    first.decode(), second.decode();
    first.count_differing(expected[0], counts[0]), second.count_differing(expected[1], counts[1]);
  }
  EXPECT_EQ(counts[0].fetch(first.stream()), 0);
  EXPECT_EQ(counts[1].fetch(second.stream()), 0);
}

// The same inputs give the same bits.
TEST(DecodeRepeat, SameBits) {
  for (const int heads : {16, 128}) {
    for (const DType dtype : {DType::bf16, DType::f16}) {
      ProblemSpec spec = small_spec();
      spec.dtype = dtype;
      spec.lengths = {2000, 65, 900, 0, 130};
      spec.num_heads_q = heads;
      spec.seqlen_q = 2;
      Problem problem(spec);
      DeviceStep step(problem);
      ASSERT_TRUE(step.schedule().ok());
      std::vector<std::byte> first;
      for (int i = 0; i < 300; ++i) {
        problem.clear_results();
        ASSERT_TRUE(step.decode().ok());
        step.fetch_results();
        std::vector<std::byte> bits;
        for (const reference::Buffer& buffer : problem.buffers().last(2)) {
          bits.insert(bits.end(), buffer.data(), buffer.data() + buffer.bytes());
        }
        if (i == 0) first = bits;
        ASSERT_EQ(first, bits) << "run " << i;
      }
      EXPECT_TRUE(is_right(problem));
    }
  }
}

}  // namespace
}  // namespace flash_mla::test
