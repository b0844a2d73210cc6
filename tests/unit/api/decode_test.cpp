// decode: valid calls reach the backend; each broken rule is named with its value, and nothing is written.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "api/plan.h"
#include "unit/api/calls.h"

namespace flash_mla::test {
namespace {

using Case = Broken<DecodeCall>;

void run(const std::vector<Case>& cases, Queries queries, Columns columns) {
  for (const Case& broken : cases) {
    SCOPED_TRACE(broken.name);
    DecodeCall call(queries, columns);
    ASSERT_TRUE(call.schedule().ok());
    broken.apply(call);
    call.memory.remember();
    expect_refused(call.decode(), broken.says);
    EXPECT_EQ(call.backend.calls, 0);
    EXPECT_TRUE(call.memory.unchanged());
  }
}

void* one_byte_on(void* p) { return static_cast<char*>(p) + 1; }

TEST(Decode, ReachesTheBackendWithEveryForm) {
  for (Queries queries : {Queries::uniform, Queries::ragged}) {
    for (Columns columns : {Columns::joint, Columns::apart}) {
      DecodeCall call(queries, columns);
      ASSERT_TRUE(call.schedule().ok());
      const Status status = call.decode();
      ASSERT_TRUE(status.ok()) << status.message();
      const DecodeProblem& problem = call.backend.last_problem;
      EXPECT_EQ(call.backend.calls, 1);
      EXPECT_EQ(problem.q_joint, columns == Columns::joint);
      EXPECT_EQ(problem.cache.joint, columns == Columns::joint);
      EXPECT_EQ(problem.batch.total_q, queries == Queries::uniform ? 6 : 3);
      EXPECT_EQ(problem.batch.seqlen_q, queries == Queries::uniform ? 2 : 3);
      EXPECT_EQ(problem.out.token_stride, 4 * 512);
      EXPECT_EQ(problem.out.batch_stride, queries == Queries::uniform ? 2 * 4 * 512 : 0);
      EXPECT_EQ(problem.lse.head_stride, queries == Queries::uniform ? 2 : 3);
      EXPECT_EQ(problem.lse.batch_stride, queries == Queries::uniform ? 8 : 0);
      EXPECT_EQ(problem.lse.token_stride, 1);
      EXPECT_EQ(problem.cache.rope.page_stride, 64 * 2 * (columns == Columns::joint ? 576 : 64));
      if (columns == Columns::joint) {
        EXPECT_EQ(problem.q_rope.data, static_cast<char*>(call.args.q.data) + 1024);
        EXPECT_EQ(problem.cache.rope.data, static_cast<char*>(call.args.kv_cache.data) + 1024);
      } else {
        EXPECT_EQ(problem.q_rope.data, call.args.q_rope.data);
        EXPECT_EQ(problem.cache.rope.data, call.args.k_rope_cache.data);
      }
    }
  }
}

TEST(Decode, NamesWhatIsWrongWithTheQueries) {
  run({{"not given", [](auto& c) { c.args.q = {}; }, {"q is not given", "[b, s_q, h_q, 576 or 512]"}},
       {"rank", [](auto& c) { c.args.q.rank = 3; }, {"q.rank is 3", "expected 4", "cu_seqlens_q"}},
       {"wild rank", [](auto& c) { c.args.q.rank = 1 << 20; }, {"q.rank is 1048576", "expected 4"}},
       {"negative rank", [](auto& c) { c.args.q.rank = -4; }, {"q.rank is -4"}},
       {"dtype", [](auto& c) { c.args.q.dtype = DType::f16; }, {"q.dtype is f16", "expected bf16"}},
       {"wild dtype", [](auto& c) { c.args.q.dtype = DType{77}; }, {"q.dtype is unknown dtype 77"}},
       {"device",
        [](auto& c) {
          c.args.q.device = {DeviceType::cuda, 1};
        },
        {"q.device is cuda:1", "cpu:0"}},
       {"negative", [](auto& c) { c.args.q.shape[1] = -2; }, {"q.shape[1] is -2", ">= 0"}},
       {"batch", [](auto& c) { c.args.q.shape[0] = 2; }, {"q.shape[0] is 2", "expected 3", "cache_seqlens.shape[0]"}},
       {"too many tokens", [](auto& c) { c.args.q.shape[1] = 4; }, {"q.shape[1] is 4", "max_seqlen_q = 3"}},
       {"no token", [](auto& c) { c.args.q.shape[1] = 0; }, {"q.shape[1] is 0"}},
       {"heads", [](auto& c) { c.args.q.shape[2] = 5; }, {"q.shape[2] is 5", "expected 4", "num_heads_q"}},
       {"columns", [](auto& c) { c.args.q.shape[3] = 500; }, {"q.shape[3] is 500", "576, or 512 with q_rope given"}},
       {"rope missing", [](auto& c) { c.args.q.shape[3] = 512; }, {"q_rope is not given", "q.shape[3] is 512"}},
       {"rope too much", [](auto& c) { c.args.q_rope = c.args.q; }, {"q_rope is given", "q.shape[3] is 576"}},
       {"null", [](auto& c) { c.args.q.data = nullptr; }, {"q.data is null"}},
       {"misaligned", [](auto& c) { c.args.q.data = one_byte_on(c.args.q.data); }, {"q.data is 0x", "2 bytes"}},
       {"last stride", [](auto& c) { c.args.q.strides[3] = 2; }, {"q.strides[3] is 2", "expected 1"}},
       {"negative stride", [](auto& c) { c.args.q.strides[1] = -576; }, {"q.strides[1] is -576", ">= 0"}},
       {"overflow",
        [](auto& c) { c.args.q.strides[0] = std::int64_t{1} << 62; },
        {"q.strides[0] is 4611686018427387904", "address space"}}},
      Queries::uniform, Columns::joint);
  run({{"rank", [](auto& c) { c.args.q_rope.rank = 2; }, {"q_rope.rank is 2", "expected 4"}},
       {"tokens", [](auto& c) { c.args.q_rope.shape[1] = 1; }, {"q_rope.shape[1] is 1", "expected 2", "q.shape[1]"}},
       {"columns", [](auto& c) { c.args.q_rope.shape[3] = 63; }, {"q_rope.shape[3] is 63", "expected 64"}},
       {"dtype", [](auto& c) { c.args.q_rope.dtype = DType::f32; }, {"q_rope.dtype is f32", "expected bf16"}},
       {"null", [](auto& c) { c.args.q_rope.data = nullptr; }, {"q_rope.data is null"}},
       {"stride", [](auto& c) { c.args.q_rope.strides[2] = -1; }, {"q_rope.strides[2] is -1"}}},
      Queries::uniform, Columns::apart);
  run({{"rank", [](auto& c) { c.args.q.rank = 4; }, {"q.rank is 4", "expected 3", "cu_seqlens_q is given"}},
       {"too many", [](auto& c) { c.args.q.shape[0] = 10; }, {"q.shape[0] is 10", "max_total_q = 9"}},
       {"fewer than the sums",
        [](auto& c) { c.args.q.shape[0] = c.args.out.shape[0] = c.args.lse.shape[1] = 2; },
        {"cu_seqlens_q[3] is 3", "q.shape[0] = 2"}}},
      Queries::ragged, Columns::joint);
}

TEST(Decode, NamesWhatIsWrongWithTheCache) {
  run({{"not given", [](auto& c) { c.args.kv_cache = {}; }, {"kv_cache is not given", "[num_pages, page_size"}},
       {"rank", [](auto& c) { c.args.kv_cache.rank = 3; }, {"kv_cache.rank is 3", "expected 4"}},
       {"dtype", [](auto& c) { c.args.kv_cache.dtype = DType::f32; }, {"kv_cache.dtype is f32", "expected bf16"}},
       {"device", [](auto& c) { c.args.kv_cache.device.index = 1; }, {"kv_cache.device is cpu:1", "cpu:0"}},
       {"page size", [](auto& c) { c.args.kv_cache.shape[1] = 32; }, {"kv_cache.shape[1] is 32", "64", "page_size"}},
       {"heads", [](auto& c) { c.args.kv_cache.shape[2] = 1; }, {"kv_cache.shape[2] is 1", "2", "num_heads_kv"}},
       {"columns", [](auto& c) { c.args.kv_cache.shape[3] = 64; }, {"kv_cache.shape[3] is 64", "k_rope_cache"}},
       {"rope", [](auto& c) { c.args.kv_cache.shape[3] = 512; }, {"k_rope_cache is not given", "kv_cache.shape[3]"}},
       {"null", [](auto& c) { c.args.kv_cache.data = nullptr; }, {"kv_cache.data is null"}},
       {"last stride", [](auto& c) { c.args.kv_cache.strides[3] = 0; }, {"kv_cache.strides[3] is 0", "expected 1"}},
       {"wild pages",
        [](auto& c) { c.args.kv_cache.shape[0] = std::int64_t{1} << 31; },
        {"kv_cache.shape[0] is 2147483648"}}},
      Queries::uniform, Columns::joint);
  run({{"pages",
        [](auto& c) { c.args.k_rope_cache.shape[0] = 5; },
        {"k_rope_cache.shape[0] is 5", "expected 6", "kv_cache.shape[0]"}},
       {"columns", [](auto& c) { c.args.k_rope_cache.shape[3] = 65; }, {"k_rope_cache.shape[3] is 65", "64"}},
       {"misaligned",
        [](auto& c) { c.args.k_rope_cache.data = one_byte_on(c.args.k_rope_cache.data); },
        {"k_rope_cache.data is 0x", "2 bytes"}}},
      Queries::ragged, Columns::apart);
}

TEST(Decode, NamesWhatIsWrongWithTableAndLengths) {
  run({{"no lengths", [](auto& c) { c.args.cache_seqlens = {}; }, {"cache_seqlens is not given", "[b]"}},
       {"lengths rank", [](auto& c) { c.args.cache_seqlens.rank = 2; }, {"cache_seqlens.rank is 2", "expected 1"}},
       {"lengths dtype", [](auto& c) { c.args.cache_seqlens.dtype = DType::i64; }, {"cache_seqlens.dtype is i64"}},
       {"lengths stride", [](auto& c) { c.args.cache_seqlens.strides[0] = 2; }, {"cache_seqlens.strides[0] is 2"}},
       {"lengths null", [](auto& c) { c.args.cache_seqlens.data = nullptr; }, {"cache_seqlens.data is null"}},
       {"batch", [](auto& c) { c.args.cache_seqlens.shape[0] = 6; }, {"cache_seqlens.shape[0] is 6", "max_batch = 5"}},
       {"negative length", [](auto& c) { c.lengths()[2] = -1; }, {"cache_seqlens[2] is -1", ">= 0"}},
       {"wild length",
        [](auto& c) { c.lengths()[0] = std::numeric_limits<std::int32_t>::max(); },
        {"cache_seqlens[0] is 2147483647"}},
       {"table not given", [](auto& c) { c.args.block_table = {}; }, {"block_table is not given", "[b, max_pages]"}},
       {"table dtype", [](auto& c) { c.args.block_table.dtype = DType::i64; }, {"block_table.dtype is i64", "i32"}},
       {"table rank", [](auto& c) { c.args.block_table.rank = 1; }, {"block_table.rank is 1", "expected 2"}},
       {"table rows", [](auto& c) { c.args.block_table.shape[0] = 4; }, {"block_table.shape[0] is 4", "expected 3"}},
       {"table null", [](auto& c) { c.args.block_table.data = nullptr; }, {"block_table.data is null"}},
       {"table stride", [](auto& c) { c.args.block_table.strides[1] = 3; }, {"block_table.strides[1] is 3"}},
       {"narrow",
        [](auto& c) { c.args.block_table.shape[1] = 1; },
        {"block_table.shape[1] is 1", "cache_seqlens[0] = 100", "2 pages"}},
       {"no columns", [](auto& c) { c.args.block_table.shape[1] = 0; }, {"block_table.shape[1] is 0"}},
       {"page past the end", [](auto& c) { c.table()[4] = 6; }, {"block_table[2, 0] is 6", "0 to 5"}},
       {"negative page", [](auto& c) { c.table()[1] = -1; }, {"block_table[0, 1] is -1", "0 to 5"}}},
      Queries::uniform, Columns::joint);
  run({{"first", [](auto& c) { c.cu()[0] = 1; }, {"cu_seqlens_q[0] is 1", "expected 0"}},
       {"falls", [](auto& c) { c.cu()[2] = 1; }, {"cu_seqlens_q[2] is 1", "cu_seqlens_q[1] = 2"}},
       {"jumps", [](auto& c) { c.cu()[1] = c.cu()[2] = c.cu()[3] = 4; }, {"cu_seqlens_q[1] is 4", "max_seqlen_q = 3"}},
       {"length", [](auto& c) { c.args.cu_seqlens_q.shape[0] = 3; }, {"cu_seqlens_q.shape[0] is 3", "expected 4"}},
       {"dtype", [](auto& c) { c.args.cu_seqlens_q.dtype = DType::f32; }, {"cu_seqlens_q.dtype is f32", "i32"}},
       {"null", [](auto& c) { c.args.cu_seqlens_q.data = nullptr; }, {"cu_seqlens_q.data is null"}}},
      Queries::ragged, Columns::joint);
}

TEST(Decode, NamesWhatIsWrongWithTheOutputs) {
  run({{"not given", [](auto& c) { c.args.out = {}; }, {"out is not given", "[b, s_q, h_q, 512]"}},
       {"rank", [](auto& c) { c.args.out.rank = 5; }, {"out.rank is 5", "expected 4"}},
       {"dtype", [](auto& c) { c.args.out.dtype = DType::f32; }, {"out.dtype is f32", "expected bf16"}},
       {"tokens", [](auto& c) { c.args.out.shape[1] = 1; }, {"out.shape[1] is 1", "expected 2", "q.shape[1]"}},
       {"heads", [](auto& c) { c.args.out.shape[2] = 3; }, {"out.shape[2] is 3", "expected 4", "q.shape[2]"}},
       {"columns", [](auto& c) { c.args.out.shape[3] = 576; }, {"out.shape[3] is 576", "expected 512"}},
       {"null", [](auto& c) { c.args.out.data = nullptr; }, {"out.data is null"}},
       {"overlap", [](auto& c) { c.args.out.strides[2] = 511; }, {"out.strides[2] is 511", "at least 512", "overlap"}},
       {"broadcast", [](auto& c) { c.args.out.strides[0] = 0; }, {"out.strides[0] is 0", "overlap"}},
       {"on q", [](auto& c) { c.args.out.data = c.args.q.data; }, {"out.data is 0x", "overlaps q"}},
       {"in the cache",
        [](auto& c) { c.args.out.data = static_cast<char*>(c.args.kv_cache.data) + 4096; },
        {"out.data is 0x", "overlaps kv_cache"}},
       {"lse dtype", [](auto& c) { c.args.lse.dtype = DType::bf16; }, {"lse.dtype is bf16", "expected f32"}},
       {"lse rank", [](auto& c) { c.args.lse.rank = 2; }, {"lse.rank is 2", "expected 3: [b, h_q, s_q]"}},
       {"lse transposed",
        [](auto& c) { std::swap(c.args.lse.shape[1], c.args.lse.shape[2]); },
        {"lse.shape[1] is 2", "expected 4", "num_heads_q"}},
       {"lse batch", [](auto& c) { c.args.lse.shape[0] = 2; }, {"lse.shape[0] is 2", "expected 3", "q.shape[0]"}},
       {"lse tokens", [](auto& c) { c.args.lse.shape[2] = 1; }, {"lse.shape[2] is 1", "expected 2", "q.shape[1]"}},
       {"lse null", [](auto& c) { c.args.lse.data = nullptr; }, {"lse.data is null"}},
       {"lse overlap", [](auto& c) { c.args.lse.strides[1] = 1; }, {"lse.strides[1] is 1", "at least 2"}},
       {"lse misaligned", [](auto& c) { c.args.lse.data = one_byte_on(c.args.lse.data); }, {"lse.data is", "4 bytes"}},
       {"scale 0", [](auto& c) { c.args.softmax_scale = 0; }, {"softmax_scale is 0", "> 0"}},
       {"scale negative", [](auto& c) { c.args.softmax_scale = -1.5f; }, {"softmax_scale is -1.5"}},
       {"scale NaN", [](auto& c) { c.args.softmax_scale = std::nanf(""); }, {"softmax_scale is nan"}},
       {"scale inf", [](auto& c) { c.args.softmax_scale = INFINITY; }, {"softmax_scale is inf", "finite"}}},
      Queries::uniform, Columns::joint);
  run({{"lse rank", [](auto& c) { c.args.lse.rank = 3; }, {"lse.rank is 3", "expected 2: [h_q, total_q]"}},
       {"lse tokens", [](auto& c) { c.args.lse.shape[1] = 2; }, {"lse.shape[1] is 2", "expected 3", "q.shape[0]"}},
       {"out tokens", [](auto& c) { c.args.out.shape[0] = 2; }, {"out.shape[0] is 2", "expected 3", "q.shape[0]"}}},
      Queries::ragged, Columns::apart);
}

TEST(Decode, NamesWhatIsWrongWithPlanAndMemories) {
  run({{"no plan", [](auto& c) { c.plan = Plan(); }, {"plan is default-constructed"}},
       {"schedule small", [](auto& c) { c.schedule_memory.bytes -= 1; }, {"schedule_memory.bytes is", "plan needs"}},
       {"schedule null", [](auto& c) { c.schedule_memory.data = nullptr; }, {"schedule_memory.data is null"}},
       {"schedule misaligned",
        [](auto& c) { c.schedule_memory.data = one_byte_on(c.schedule_memory.data); },
        {"schedule_memory.data is 0x", "16 bytes"}},
       {"schedule device",
        [](auto& c) {
          c.schedule_memory.device = {DeviceType::cuda, 0};
        },
        {"schedule_memory.device is cuda:0"}},
       {"scratch small", [](auto& c) { c.scratch.bytes = 0; }, {"scratch.bytes is 0"}},
       {"scratch negative", [](auto& c) { c.scratch.bytes = -1; }, {"scratch.bytes is -1"}},
       {"scratch null", [](auto& c) { c.scratch.data = nullptr; }, {"scratch.data is null"}},
       {"scratch misaligned",
        [](auto& c) { c.scratch.data = static_cast<char*>(c.scratch.data) + 16; },
        {"scratch.data is 0x", "128 bytes"}},
       {"schedule in scratch",
        [](auto& c) { c.schedule_memory.data = c.scratch.data; },
        {"scratch.data is 0x", "overlaps schedule_memory"}},
       {"lse in scratch",
        [](auto& c) { c.args.lse.data = static_cast<char*>(c.scratch.data) + 64; },
        {"lse.data is 0x", "overlaps scratch"}}},
      Queries::uniform, Columns::joint);
}

}  // namespace
}  // namespace flash_mla::test
