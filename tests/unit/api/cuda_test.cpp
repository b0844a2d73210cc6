// Arguments on a CUDA device: 16-byte rules, no look into the device's memory, no allocation.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>

#include "api/validate.h"
#include "unit/api/calls.h"

namespace flash_mla::test {
namespace {

constexpr Device kCuda{DeviceType::cuda, 0};
using Case = Broken<DecodeCall>;

TEST(Cuda, NothingOnTheDeviceIsRead) {
  for (Queries queries : {Queries::uniform, Queries::ragged}) {
    for (Columns columns : {Columns::joint, Columns::apart}) {
      DecodeCall call(queries, columns, kCuda);
      ASSERT_TRUE(call.schedule().ok());
      const Status status = call.decode();
      EXPECT_TRUE(status.ok()) << status.message();
      EXPECT_EQ(call.backend.calls, 1);
    }
  }
}

TEST(Cuda, BasesAndStridesAreMultiplesOf16Bytes) {
  const auto shift = [](TensorView& view, int bytes) { view.data = static_cast<char*>(view.data) + bytes; };
  const std::vector<Case> cases = {
      {"q base", [&](auto& c) { shift(c.args.q, 8); }, {"q.data is 0x", "16 bytes"}},
      {"rope base", [&](auto& c) { shift(c.args.q_rope, 2); }, {"q_rope.data is 0x", "16 bytes"}},
      {"cache base", [&](auto& c) { shift(c.args.kv_cache, 4); }, {"kv_cache.data is 0x", "16 bytes"}},
      {"k rope base", [&](auto& c) { shift(c.args.k_rope_cache, 8); }, {"k_rope_cache.data is 0x", "16 bytes"}},
      {"out base", [&](auto& c) { shift(c.args.out, 8); }, {"out.data is 0x", "16 bytes"}},
      {"q stride", [](auto& c) { c.args.q.strides[2] = 516; }, {"q.strides[2] is 516 elements of bf16", "16 bytes"}},
      {"page stride", [](auto& c) { c.args.kv_cache.strides[0] += 4; }, {"kv_cache.strides[0] is 65540", "16 bytes"}},
      {"rope stride", [](auto& c) { c.args.k_rope_cache.strides[1] = 132; }, {"k_rope_cache.strides[1] is 132"}},
      {"out stride", [](auto& c) { c.args.out.strides[0] += 1; }, {"out.strides[0] is 4097", "16 bytes"}},
      {"device", [](auto& c) { c.args.block_table.device.index = 1; }, {"block_table.device is cuda:1", "cuda:0"}},
      {"host lengths", [](auto& c) { c.args.cache_seqlens.device = {}; }, {"cache_seqlens.device is cpu:0"}},
  };
  for (const Case& broken : cases) {
    SCOPED_TRACE(broken.name);
    DecodeCall call(Queries::uniform, Columns::apart, kCuda);
    broken.apply(call);
    expect_refused(call.decode(), broken.says);
    EXPECT_EQ(call.backend.calls, 0);
  }
}

TEST(Cuda, LseNeedsOnlyItsElementsAlignment) {
  DecodeCall call(Queries::uniform, Columns::joint, kCuda);
  call.args.lse.data = static_cast<char*>(call.args.lse.data) + 4;
  EXPECT_TRUE(call.decode().ok());
}

TEST(Cuda, F32IsUnsupported) {
  const Status status = validate_plan({.device = kCuda, .dtype = DType::f32, .num_heads_q = 1});
  EXPECT_EQ(status.code(), StatusCode::unsupported);
  EXPECT_NE(std::string(status.message()).find("config.dtype is f32"), std::string::npos) << status.message();
}

// A decode call may cost the host 5 us, launch included. The bound here is loose, for debug builds and busy machines.
TEST(Cuda, ValidationIsQuickWhateverTheBatch) {
  DecodeCall call(Queries::uniform, Columns::apart, kCuda);
  DecodeProblem problem;
  constexpr int kRounds = 20000;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kRounds; ++i) {
    ASSERT_TRUE(validate_decode(call.plan, call.args, call.schedule_memory, call.scratch, &problem).ok());
  }
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  RecordProperty("microseconds_per_call", std::to_string(took.count() / kRounds));
  std::printf("validate_decode: %.3f us\n", took.count() / kRounds);
  EXPECT_LT(took.count() / kRounds, 50.0);
}

}  // namespace
}  // namespace flash_mla::test
