// append_kv, copy_pages and merge: each broken rule is named with its value; what passes has the right form.
#include <gtest/gtest.h>

#include <algorithm>

#include "api/validate.h"
#include "unit/api/calls.h"

namespace flash_mla::test {
namespace {

struct AppendCall {
  explicit AppendCall(Columns columns = Columns::joint, Device device = {}) {
    const std::int64_t d = columns == Columns::joint ? 576 : 512;
    args.kv_cache = memory.tensor(DType::bf16, {3, 16, 2, d}, device);
    if (columns == Columns::apart) args.k_rope_cache = memory.tensor(DType::bf16, {3, 16, 2, 64}, device);
    args.c_kv = memory.tensor(DType::bf16, {4, 2, 512}, device);
    args.k_pe = memory.tensor(DType::bf16, {4, 2, 64}, device);
    args.slot_mapping = memory.tensor(DType::i64, {4}, device);
    if (device.type == DeviceType::cpu) std::ranges::copy(std::vector<std::int64_t>{0, -1, 47, 5}, slots());
  }
  std::int64_t* slots() const { return static_cast<std::int64_t*>(args.slot_mapping.data); }

  Memory memory;
  AppendArgs args;
};

struct CopyCall {
  CopyCall() : cache(memory.tensor(DType::f16, {5, 32, 1, 576}, {})), pairs(memory.tensor(DType::i64, {2, 2}, {})) {
    std::ranges::copy(std::vector<std::int64_t>{0, 1, 0, 4}, ids());
  }
  std::int64_t* ids() const { return static_cast<std::int64_t*>(pairs.data); }

  Memory memory;
  TensorView cache, pairs;
};

struct MergeCall {
  MergeCall() {
    args.partial_out = memory.tensor(DType::f32, {3, 7, 512}, {});
    args.partial_lse = memory.tensor(DType::f32, {3, 7}, {});
    args.out = memory.tensor(DType::bf16, {7, 512}, {});
    args.lse = memory.tensor(DType::f32, {7}, {});
  }
  Memory memory;
  MergeArgs args;
};

TEST(Append, NamesWhatIsWrong) {
  const std::vector<Broken<AppendCall>> cases = {
      {"no cache", [](auto& c) { c.args.kv_cache = {}; }, {"kv_cache is not given"}},
      {"dtype", [](auto& c) { c.args.kv_cache.dtype = DType::i32; }, {"kv_cache.dtype is i32", "bf16, f16 or f32"}},
      {"page", [](auto& c) { c.args.kv_cache.shape[1] = 15; }, {"kv_cache.shape[1] is 15", "16, 32, 64"}},
      {"heads", [](auto& c) { c.args.kv_cache.shape[2] = 0; }, {"kv_cache.shape[2] is 0"}},
      {"width", [](auto& c) { c.args.kv_cache.shape[3] = 100; }, {"kv_cache.shape[3] is 100", "k_rope_cache given"}},
      {"overlap", [](auto& c) { c.args.kv_cache.strides[0] = 0; }, {"kv_cache.strides[0] is 0", "overlap"}},
      {"c_kv dtype", [](auto& c) { c.args.c_kv.dtype = DType::f16; }, {"c_kv.dtype is f16", "expected bf16"}},
      {"c_kv rank", [](auto& c) { c.args.c_kv.rank = 2; }, {"c_kv.rank is 2", "[n, h_kv, 512]"}},
      {"c_kv tokens", [](auto& c) { c.args.c_kv.shape[0] = 3; }, {"c_kv.shape[0] is 3", "4", "slot_mapping"}},
      {"c_kv heads", [](auto& c) { c.args.c_kv.shape[1] = 1; }, {"c_kv.shape[1] is 1", "2", "kv_cache.shape[2]"}},
      {"c_kv width", [](auto& c) { c.args.c_kv.shape[2] = 576; }, {"c_kv.shape[2] is 576", "512"}},
      {"k_pe", [](auto& c) { c.args.k_pe = {}; }, {"k_pe is not given", "[n, h_kv, 64]"}},
      {"k_pe width", [](auto& c) { c.args.k_pe.shape[2] = 32; }, {"k_pe.shape[2] is 32", "64"}},
      {"k_pe null", [](auto& c) { c.args.k_pe.data = nullptr; }, {"k_pe.data is null"}},
      {"slots dtype", [](auto& c) { c.args.slot_mapping.dtype = DType::i32; }, {"slot_mapping.dtype is i32", "i64"}},
      {"slots device", [](auto& c) { c.args.slot_mapping.device.index = 1; }, {"slot_mapping.device is cpu:1"}},
      {"slots null", [](auto& c) { c.args.slot_mapping.data = nullptr; }, {"slot_mapping.data is null"}},
      {"slot", [](auto& c) { c.slots()[3] = 48; }, {"slot_mapping[3] is 48", "48 slots", "3 pages of 16"}},
      {"in the cache", [](auto& c) { c.args.c_kv.data = c.args.kv_cache.data; }, {"kv_cache.data", "overlaps c_kv"}},
  };
  for (const auto& broken : cases) {
    SCOPED_TRACE(broken.name);
    AppendCall call;
    broken.apply(call);
    call.memory.remember();
    AppendProblem problem;
    expect_refused(validate_append(call.args, &problem), broken.says);
    expect_refused(append_kv(call.args), broken.says);
    EXPECT_TRUE(call.memory.unchanged());
  }
}

TEST(Append, NamesWhatIsWrongWithTwoCaches) {
  const std::vector<Broken<AppendCall>> cases = {
      {"pages", [](auto& c) { c.args.k_rope_cache.shape[0] = 2; }, {"k_rope_cache.shape[0] is 2", "expected 3"}},
      {"overlap", [](auto& c) { c.args.k_rope_cache.strides[1] = 64; }, {"k_rope_cache.strides[", "overlap"}},
      {"one in the other",
       [](auto& c) { c.args.k_rope_cache.data = c.args.kv_cache.data; },
       {"kv_cache.data", "overlaps k_rope_cache"}},
      {"tokens in it",
       [](auto& c) { c.args.k_pe.data = c.args.k_rope_cache.data; },
       {"k_rope_cache.data", "overlaps k_pe"}},
  };
  for (const auto& broken : cases) {
    SCOPED_TRACE(broken.name);
    AppendCall call(Columns::apart);
    broken.apply(call);
    call.memory.remember();
    expect_refused(append_kv(call.args), broken.says);
    EXPECT_TRUE(call.memory.unchanged());
  }
}

TEST(Append, PassesOnTheForm) {
  AppendCall call(Columns::apart);
  call.args.slot_mapping.shape[0] = call.args.c_kv.shape[0] = call.args.k_pe.shape[0] = 2;
  call.args.slot_mapping.strides[0] = 3;
  AppendProblem problem;
  const Status status = validate_append(call.args, &problem);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(problem.tokens, 2);
  EXPECT_EQ(problem.slots_stride, 3);
  EXPECT_EQ(problem.num_heads_kv, 2);
  EXPECT_FALSE(problem.cache.joint);
  EXPECT_EQ(problem.cache.page_size, 16);
}

TEST(Append, OnCudaSlotsAreNotReadAndStridesAreMultiplesOf16Bytes) {
  AppendCall call(Columns::joint, {DeviceType::cuda, 0});
  AppendProblem problem;
  EXPECT_TRUE(validate_append(call.args, &problem).ok());
  call.args.c_kv.strides[0] = 1028;
  expect_refused(validate_append(call.args, &problem), {"c_kv.strides[0] is 1028", "16 bytes"});
}

TEST(CopyPages, NamesWhatIsWrong) {
  const std::vector<Broken<CopyCall>> cases = {
      {"no cache", [](auto& c) { c.cache = {}; }, {"cache is not given"}},
      {"rank", [](auto& c) { c.cache.rank = 3; }, {"cache.rank is 3", "expected 4"}},
      {"dtype", [](auto& c) { c.cache.dtype = DType::i64; }, {"cache.dtype is i64"}},
      {"page size", [](auto& c) { c.cache.shape[1] = 8; }, {"cache.shape[1] is 8"}},
      {"columns", [](auto& c) { c.cache.shape[3] = 0; }, {"cache.shape[3] is 0"}},
      {"null", [](auto& c) { c.cache.data = nullptr; }, {"cache.data is null"}},
      {"overlap", [](auto& c) { c.cache.strides[0] = 576; }, {"cache.strides[", "overlap"}},
      {"pairs in it", [](auto& c) { c.pairs.data = c.cache.data; }, {"cache.data", "overlaps page_pairs"}},
      {"pairs dtype", [](auto& c) { c.pairs.dtype = DType::i32; }, {"page_pairs.dtype is i32", "i64"}},
      {"pairs shape", [](auto& c) { c.pairs.shape[1] = 3; }, {"page_pairs.shape[1] is 3", "expected 2"}},
      {"pairs stride", [](auto& c) { c.pairs.strides[0] = 4; }, {"page_pairs.strides[0] is 4", "expected 2"}},
      {"pairs null", [](auto& c) { c.pairs.data = nullptr; }, {"page_pairs.data is null"}},
      {"source", [](auto& c) { c.ids()[2] = 5; }, {"page_pairs[1, 0] is 5", "0 to 4"}},
      {"destination", [](auto& c) { c.ids()[1] = -1; }, {"page_pairs[0, 1] is -1", "0 to 4"}},
      {"twice", [](auto& c) { c.ids()[3] = 1; }, {"page_pairs has 1 as a destination twice"}},
      {"both", [](auto& c) { c.ids()[3] = 0; }, {"page_pairs[0, 0] is 0", "also a destination"}},
  };
  for (const auto& broken : cases) {
    SCOPED_TRACE(broken.name);
    CopyCall call;
    broken.apply(call);
    call.memory.remember();
    expect_refused(copy_pages(call.cache, call.pairs), broken.says);
    EXPECT_TRUE(call.memory.unchanged());
  }
}

TEST(Merge, NamesWhatIsWrong) {
  const std::vector<Broken<MergeCall>> cases = {
      {"not given", [](auto& c) { c.args.partial_out = {}; }, {"partial_out is not given", "[n, rows, 512]"}},
      {"dtype", [](auto& c) { c.args.partial_out.dtype = DType::i32; }, {"partial_out.dtype is i32"}},
      {"rank", [](auto& c) { c.args.partial_out.rank = 2; }, {"partial_out.rank is 2", "expected 3"}},
      {"null", [](auto& c) { c.args.partial_out.data = nullptr; }, {"partial_out.data is null"}},
      {"no shard", [](auto& c) { c.args.partial_out.shape[0] = 0; }, {"partial_out.shape[0] is 0", "1 to"}},
      {"width", [](auto& c) { c.args.partial_out.shape[2] = 64; }, {"partial_out.shape[2] is 64", "512"}},
      {"lse dtype", [](auto& c) { c.args.partial_lse.dtype = DType::f16; }, {"partial_lse.dtype is f16", "f32"}},
      {"lse shards", [](auto& c) { c.args.partial_lse.shape[0] = 2; }, {"partial_lse.shape[0] is 2", "expected 3"}},
      {"lse rows", [](auto& c) { c.args.partial_lse.shape[1] = 6; }, {"partial_lse.shape[1] is 6", "expected 7"}},
      {"lse null", [](auto& c) { c.args.partial_lse.data = nullptr; }, {"partial_lse.data is null"}},
      {"out", [](auto& c) { c.args.out = {}; }, {"out is not given", "[rows, 512]"}},
      {"out rows", [](auto& c) { c.args.out.shape[0] = 8; }, {"out.shape[0] is 8", "expected 7"}},
      {"out width", [](auto& c) { c.args.out.shape[1] = 64; }, {"out.shape[1] is 64", "512"}},
      {"out on shards",
       [](auto& c) { c.args.out.data = c.args.partial_out.data; },
       {"out.data", "overlaps partial_out"}},
      {"lse on out", [](auto& c) { c.args.lse.data = c.args.out.data; }, {"out.data", "overlaps lse"}},
      {"out lse dtype", [](auto& c) { c.args.lse.dtype = DType::bf16; }, {"lse.dtype is bf16", "f32"}},
      {"out lse rank", [](auto& c) { c.args.lse.rank = 2; }, {"lse.rank is 2", "expected 1"}},
      {"out overlap", [](auto& c) { c.args.out.strides[0] = 256; }, {"out.strides[0] is 256", "at least 512"}},
      {"out device", [](auto& c) { c.args.out.device.index = 2; }, {"out.device is cpu:2"}},
      {"out lse", [](auto& c) { c.args.lse.shape[0] = 1; }, {"lse.shape[0] is 1", "expected 7"}},
      {"out lse stride", [](auto& c) { c.args.lse.strides[0] = 0; }, {"lse.strides[0] is 0", "overlap"}},
      {"in place", [](auto& c) { c.args.lse.data = c.args.partial_lse.data; }, {"lse.data", "overlaps partial_lse"}},
  };
  for (const auto& broken : cases) {
    SCOPED_TRACE(broken.name);
    MergeCall call;
    broken.apply(call);
    call.memory.remember();
    expect_refused(merge(call.args), broken.says);
    EXPECT_TRUE(call.memory.unchanged());
  }
}

TEST(Merge, PassesOnTheForm) {
  MergeCall call;
  call.args.lse = {};
  std::swap(call.args.partial_lse.strides[0], call.args.partial_lse.strides[1]);
  MergeProblem problem;
  const Status status = validate_merge(call.args, &problem);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(problem.shards, 3);
  EXPECT_EQ(problem.rows, 7);
  EXPECT_EQ(problem.partial_lse_row_stride, 7);
  EXPECT_EQ(problem.lse, nullptr);
}

}  // namespace
}  // namespace flash_mla::test
