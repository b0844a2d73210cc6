// schedule's arguments, and whether decode takes a schedule memory for what it is.
#include <gtest/gtest.h>

#include <cstring>

#include "api/plan.h"
#include "schedule/records.h"
#include "unit/api/calls.h"

namespace flash_mla::test {
namespace {

using Case = Broken<DecodeCall>;

void refuse_schedule(const std::vector<Case>& cases, Queries queries) {
  for (const Case& broken : cases) {
    SCOPED_TRACE(broken.name);
    DecodeCall call(queries);
    broken.apply(call);
    call.memory.remember();
    expect_refused(flash_mla::schedule(call.plan, call.schedule_args, call.schedule_memory), broken.says);
    EXPECT_EQ(call.backend.calls, 0);
    EXPECT_TRUE(call.memory.unchanged());
  }
}

TEST(Schedule, NamesWhatIsWrong) {
  refuse_schedule(
      {{"no plan", [](auto& c) { c.plan = Plan(); }, {"plan is default-constructed"}},
       {"no lengths", [](auto& c) { c.schedule_args.cache_seqlens = {}; }, {"cache_seqlens is not given"}},
       {"dtype", [](auto& c) { c.schedule_args.cache_seqlens.dtype = DType::i64; }, {"cache_seqlens.dtype is i64"}},
       {"batch", [](auto& c) { c.schedule_args.cache_seqlens.shape[0] = 6; }, {"cache_seqlens.shape[0] is 6", "5"}},
       {"negative", [](auto& c) { c.lengths()[1] = -7; }, {"cache_seqlens[1] is -7", ">= 0"}},
       {"seqlen_q negative", [](auto& c) { c.schedule_args.seqlen_q = -1; }, {"seqlen_q is -1"}},
       {"seqlen_q wide", [](auto& c) { c.schedule_args.seqlen_q = 4; }, {"seqlen_q is 4", "max_seqlen_q = 3"}},
       {"total",
        [](auto& c) { PlanAccess::config(c.plan).max_total_q = 5; },
        {"seqlen_q is 2", "3 requests", "6 query tokens", "max_total_q = 5"}},
       {"small", [](auto& c) { c.schedule_memory.bytes = 31; }, {"schedule_memory.bytes is 31", "plan needs"}},
       {"null", [](auto& c) { c.schedule_memory.data = nullptr; }, {"schedule_memory.data is null"}},
       {"misaligned",
        [](auto& c) { c.schedule_memory.data = static_cast<char*>(c.schedule_memory.data) + 8; },
        {"schedule_memory.data is 0x", "16 bytes"}},
       {"device", [](auto& c) { c.schedule_memory.device.index = 3; }, {"schedule_memory.device is cpu:3"}},
       {"on lengths",
        [](auto& c) { c.schedule_args.cache_seqlens.data = c.schedule_memory.data; },
        {"schedule_memory.data is 0x", "overlaps cache_seqlens"}}},
      Queries::uniform);
  refuse_schedule({{"both", [](auto& c) { c.schedule_args.seqlen_q = 2; }, {"seqlen_q is 2", "cu_seqlens_q"}},
                   {"first", [](auto& c) { c.cu()[0] = -1; }, {"cu_seqlens_q[0] is -1", "expected 0"}},
                   {"falls", [](auto& c) { c.cu()[3] = 1; }, {"cu_seqlens_q[3] is 1", "cu_seqlens_q[2] = 2"}},
                   {"one request",
                    [](auto& c) { c.cu()[1] = c.cu()[2] = c.cu()[3] = 4; },
                    {"cu_seqlens_q[1] is 4", "request 0 4", "max_seqlen_q = 3"}},
                   {"sum",
                    [](auto& c) { PlanAccess::config(c.plan).max_total_q = 2; },
                    {"cu_seqlens_q[3] is 3", "max_total_q = 2"}},
                   {"on sums",
                    [](auto& c) { c.schedule_args.cu_seqlens_q.data = c.schedule_memory.data; },
                    {"schedule_memory.data is 0x", "overlaps cu_seqlens_q"}},
                   {"shape",
                    [](auto& c) { c.schedule_args.cu_seqlens_q.shape[0] = 5; },
                    {"cu_seqlens_q.shape[0] is 5", "expected 4"}}},
                  Queries::ragged);
}

TEST(Schedule, TakesThePlansBoundAndEmptyBatches) {
  DecodeCall call;
  call.schedule_args.seqlen_q = 0;
  ASSERT_TRUE(call.schedule().ok());
  EXPECT_EQ(call.backend.last_batch.seqlen_q, 3);
  EXPECT_EQ(call.backend.last_batch.total_q, 9);

  call.schedule_args.cache_seqlens = TensorView::contiguous(nullptr, DType::i32, {0});
  EXPECT_TRUE(call.schedule().ok());
  EXPECT_EQ(call.backend.last_batch.batch, 0);
}

TEST(ScheduleMemory, IsRecognised) {
  const std::vector<Case> cases = {
      {"never made", [](auto& c) { std::memset(c.schedule_memory.data, 0, 32); }, {"schedule_memory begins with 0"}},
      {"lengths changed", [](auto& c) { c.lengths()[0] = 99; }, {"schedule_memory", "lengths", "cache_seqlens"}},
      {"lengths swapped", [](auto& c) { c.lengths()[0] = 65, c.lengths()[2] = 100; }, {"schedule_memory", "lengths"}},
      {"other s_q", [](auto& c) { c.schedule_args.seqlen_q = 3, (void)c.schedule(); }, {"schedule_memory", "shape"}},
      {"other parts",
       [](auto& c) { static_cast<ScheduleHeader*>(c.schedule_memory.data)->num_parts = 2; },
       {"schedule_memory was made for 2 parts; the plan has 3"}},
      {"fewer requests",
       [](auto& c) { c.schedule_args.cache_seqlens.shape[0] = 2, (void)c.schedule(); },
       {"cache_seqlens[2] is 65", "2 requests"}},
  };
  for (const Case& broken : cases) {
    SCOPED_TRACE(broken.name);
    DecodeCall call;
    ASSERT_TRUE(call.schedule().ok());
    broken.apply(call);
    call.backend.calls = 0;
    expect_refused(call.decode(), broken.says);
    EXPECT_EQ(call.backend.calls, 0);
  }
}

TEST(ScheduleMemory, OfAsManyRowsServesOtherHeads) {
  DecodeCall call;
  PlanConfig config = call.config;
  config.num_heads_q = 8, config.max_seqlen_q = 1;  // 4 rows a kv head, as 2 query tokens of 4 heads have
  const Result<Plan> rows = make_plan(config, call.backend);
  ASSERT_TRUE(rows.ok());
  call.schedule_args.seqlen_q = 1;
  ASSERT_TRUE(schedule(*rows, call.schedule_args, call.schedule_memory).ok());
  EXPECT_TRUE(call.decode().ok());
}

TEST(NumSplits, AreCountedForALegalScheduleAlone) {
  DecodeCall call;
  const TensorView counts = call.memory.tensor(DType::i32, {4}, {});
  ASSERT_TRUE(call.schedule().ok());
  ASSERT_TRUE(num_splits(call.plan, call.schedule_memory, counts).ok());
  const auto* values = static_cast<const std::int32_t*>(counts.data);
  EXPECT_EQ(values[0], 0);
  EXPECT_GE(values[3], 3);

  expect_refused(num_splits({}, call.schedule_memory, counts), {"plan is default-constructed"});
  expect_refused(num_splits(call.plan, {}, counts), {"schedule_memory"});
  expect_refused(num_splits(call.plan, call.schedule_memory, {}), {"num_splits", "[b + 1]"});
  TensorView none = counts;
  none.shape[0] = 0;
  expect_refused(num_splits(call.plan, call.schedule_memory, none), {"num_splits.shape[0] is 0", "b + 1"});
  std::memset(call.schedule_memory.data, 0, 32);
  expect_refused(num_splits(call.plan, call.schedule_memory, counts), {"schedule_memory begins with 0"});
}

TEST(ScheduleMemory, OfRaggedQueriesIsRecognised) {
  DecodeCall call(Queries::ragged);
  ASSERT_TRUE(call.schedule().ok());
  call.cu()[1] = 1;
  expect_refused(call.decode(), {"schedule_memory", "cu_seqlens_q"});
}

TEST(ScheduleMemory, OfMoreRequestsIsRefused) {
  DecodeCall call;
  call.schedule_args.cache_seqlens = call.memory.tensor(DType::i32, {4}, {});
  std::memset(call.schedule_args.cache_seqlens.data, 0, 16);
  ASSERT_TRUE(call.schedule().ok());
  expect_refused(call.decode(), {"schedule_memory was made for 4 requests", "cache_seqlens.shape[0] is 3"});
}

TEST(ScheduleMemory, MayBePaddedWithEmptyRequests) {
  DecodeCall call;
  call.lengths()[2] = 0;
  call.schedule_args.cache_seqlens.shape[0] = 2;
  ASSERT_TRUE(call.schedule().ok());
  EXPECT_TRUE(call.decode().ok());
}

// A schedule without a mask covers the blocks of one with it; the reverse misses some.
TEST(ScheduleMemory, WithoutMaskServesACausalDecodeButNotTheReverse) {
  DecodeCall call;
  call.backend.tuning.rows_per_unit = 2;  // two bundles, which the mask cuts differently
  const Result<Plan> masked = make_plan(call.config, call.backend);
  ASSERT_TRUE(masked.ok());
  call.plan = *masked;
  PlanConfig config = call.config;
  config.causal = false;
  const Result<Plan> unmasked = make_plan(config, call.backend);
  ASSERT_TRUE(unmasked.ok());
  ASSERT_TRUE(schedule(*unmasked, call.schedule_args, call.schedule_memory).ok());
  EXPECT_TRUE(call.decode().ok());

  ASSERT_TRUE(call.schedule().ok());
  call.plan = *unmasked;
  expect_refused(call.decode(), {"schedule_memory", "causal"});
}

}  // namespace
}  // namespace flash_mla::test
