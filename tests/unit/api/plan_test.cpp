// plan(): each bound that can be wrong, sizes of the memories, and what a backend's answer may not be.
#include "api/plan.h"

#include <gtest/gtest.h>

#include <limits>

#include "schedule/layout.h"
#include "unit/api/calls.h"

namespace flash_mla::test {
namespace {

constexpr std::int32_t kMax = std::numeric_limits<std::int32_t>::max();

PlanConfig valid_config() { return {.max_batch = 8, .max_seqlen_q = 2, .num_heads_q = 16}; }

Status status_of(const PlanConfig& config, const FakeBackend& backend) {
  const Result<Plan> made = make_plan(config, backend);
  EXPECT_TRUE(made.ok() || made.status().message()[0] != '\0');
  return made.ok() ? Status() : made.status();
}

TEST(Plan, NamesWhatIsWrong) {
  const std::vector<Broken<PlanConfig>> cases = {
      {"dtype", [](auto& c) { c.dtype = DType::i32; }, {"config.dtype is i32", "bf16, f16 or f32"}},
      {"wild dtype", [](auto& c) { c.dtype = DType{200}; }, {"config.dtype is unknown dtype 200"}},
      {"batch", [](auto& c) { c.max_batch = -1; }, {"config.max_batch is -1", "at least 0"}},
      {"total", [](auto& c) { c.max_total_q = -5; }, {"config.max_total_q is -5"}},
      {"total", [](auto& c) { c.max_total_q = std::int64_t{1} << 40; }, {"config.max_total_q is 1099511627776"}},
      {"seqlen", [](auto& c) { c.max_seqlen_q = 0; }, {"config.max_seqlen_q is 0", "at least 1"}},
      {"no heads", [](auto& c) { c.num_heads_q = 0; }, {"config.num_heads_q is 0", "at least 1"}},
      {"no kv heads", [](auto& c) { c.num_heads_kv = 0; }, {"config.num_heads_kv is 0", "at least 1"}},
      {"heads", [](auto& c) { c.num_heads_kv = 3; }, {"config.num_heads_q is 16", "multiple of num_heads_kv = 3"}},
      {"page 0", [](auto& c) { c.page_size = 0; }, {"config.page_size is 0", "16, 32, 64"}},
      {"page 48", [](auto& c) { c.page_size = 48; }, {"config.page_size is 48"}},
      {"page 96", [](auto& c) { c.page_size = 96; }, {"config.page_size is 96"}},
      {"page -64", [](auto& c) { c.page_size = -64; }, {"config.page_size is -64"}},
      {"parts", [](auto& c) { c.num_parts = -1; }, {"config.num_parts is -1"}},
      {"many parts", [](auto& c) { c.num_parts = kMax; }, {"config.num_parts is 2147483647", "65536"}},
      {"rows", [](auto& c) { c.max_seqlen_q = kMax; }, {"config.max_seqlen_q is 2147483647", "num_heads_q = 16"}},
      {"units",
       [](auto& c) { c.max_batch = kMax, c.max_seqlen_q = 1 << 20, c.num_heads_q = 1024; },
       {"config.max_batch is 2147483647", "units"}},
      {"index", [](auto& c) { c.device.index = 1; }, {"config.device.index is 1", "1 devices"}},
      {"negative index", [](auto& c) { c.device.index = -1; }, {"config.device.index is -1"}},
  };
  const FakeBackend backend(DeviceType::cpu);
  for (const auto& broken : cases) {
    SCOPED_TRACE(broken.name);
    PlanConfig config = valid_config();
    broken.apply(config);
    expect_refused(status_of(config, backend), broken.says);
  }
}

TEST(Plan, NamesTheDeviceNobodyServes) {
  PlanConfig config = valid_config();
  config.device.type = DeviceType{9};
  expect_refused(plan(config).status(), {"config.device.type is 9"});
  config.device = {DeviceType::cpu, 2};
  expect_refused(plan(config).status(), {"config.device.index is 2"});
}

TEST(Plan, IsUnsupportedWhereTheBackendIsNotAvailable) {
  FakeBackend backend(DeviceType::cpu);
  backend.available = false;
  const Status status = status_of(valid_config(), backend);
  EXPECT_EQ(status.code(), StatusCode::unsupported);
  EXPECT_NE(std::string(status.message()).find("it is a test's"), std::string::npos) << status.message();
}

TEST(Plan, HoldsBoundsTuningAndSizes) {
  FakeBackend backend(DeviceType::cpu);
  backend.tuning.scratch_bytes = 1000;
  const Result<Plan> made = make_plan(valid_config(), backend);
  ASSERT_TRUE(made.ok()) << made.status().message();
  EXPECT_EQ(made->config().max_total_q, 16);
  EXPECT_EQ(made->num_parts(), 3);
  EXPECT_EQ(made->rows_per_unit(), 64);
  EXPECT_EQ(made->backend(), &backend);
  EXPECT_EQ(PlanAccess::cost_fixed(*made), 4);
  EXPECT_EQ(made->schedule_bytes(), (ScheduleLayout{3}.total_bytes()));
  EXPECT_EQ(made->scratch_bytes(), 1000);
  EXPECT_EQ(Plan().schedule_bytes(), 0);
}

TEST(Plan, TakesEveryPageSizeAndHeadCount) {
  const FakeBackend backend(DeviceType::cpu);
  for (std::int32_t page_size : {16, 32, 64, 128, 192, 1024}) {
    PlanConfig config = valid_config();
    config.page_size = page_size;
    EXPECT_TRUE(status_of(config, backend).ok()) << page_size;
  }
  for (std::int32_t heads : {1, 3, 9, 16, 63, 64, 100, 126, 128}) {
    PlanConfig config = valid_config();
    config.num_heads_q = heads;
    EXPECT_TRUE(status_of(config, backend).ok()) << heads;
  }
  for (std::int32_t parts : {1, 14, 78, 114, 132, 144, 200}) {
    PlanConfig config = valid_config();
    config.num_parts = parts, config.max_batch = 70000;
    EXPECT_TRUE(status_of(config, backend).ok()) << parts;
  }
  PlanConfig nothing = valid_config();
  nothing.max_batch = 0;
  EXPECT_TRUE(status_of(nothing, backend).ok());
}

TEST(Plan, RefusesAnUnsoundTuning) {
  for (std::int32_t parts : {0, -1, kMax}) {
    FakeBackend backend(DeviceType::cpu);
    backend.tuning.num_parts = parts;
    EXPECT_EQ(status_of(valid_config(), backend).code(), StatusCode::internal);
  }
}

}  // namespace
}  // namespace flash_mla::test
