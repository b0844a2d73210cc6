// Host threads call the API side by side, each with its own scratch and outputs, and each gets what it gets alone.
// Meant for ThreadSanitizer, there with OMP_NUM_THREADS=1.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "cpu/step.h"

namespace flash_mla::test {
namespace {

using reference::Problem;
using reference::ProblemSpec;

constexpr int kThreads = 4;
constexpr int kRounds = 5;

ProblemSpec spec_of(int thread) {
  ProblemSpec spec;
  spec.dtype = thread % 2 == 0 ? DType::bf16 : DType::f32;
  spec.lengths = {100 + 70 * thread, 0, 33};
  spec.seqlen_q = 1 + thread % 3;
  spec.num_parts = 1 + thread;
  spec.seed = static_cast<std::uint64_t>(thread) + 1;
  return spec;
}

// One failure message a thread: GoogleTest's assertions stay on the main thread.
void in_threads(const std::function<std::string(int)>& work) {
  std::vector<std::string> failures(kThreads);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] { failures[static_cast<std::size_t>(thread)] = work(thread); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& failure : failures) EXPECT_EQ(failure, "");
}

TEST(Threads, DistinctStepsSideBySide) {
  std::vector<Bits> expected;
  for (int thread = 0; thread < kThreads; ++thread) {
    Problem problem(spec_of(thread));
    ASSERT_TRUE(runs_right(problem));
    expected.push_back(bits_of(problem.decode_args()));
  }
  in_threads([&](int thread) -> std::string {
    for (int round = 0; round < kRounds; ++round) {
      Problem problem(spec_of(thread));
      if (const Status status = run(problem); !status) return status.message();
      if (bits_of(problem.decode_args()) != expected[static_cast<std::size_t>(thread)]) return "other bits than alone";
    }
    return {};
  });
}

// Layers in flight at once: one schedule, one cache and one q, that all only read.
TEST(Threads, SharedScheduleAndInputs) {
  Problem problem(spec_of(2));
  Step step(problem.plan_config());
  ASSERT_TRUE(step.schedule(problem.schedule_args()).ok());
  ASSERT_TRUE(step.decode(problem.decode_args()).ok());
  const Bits expected = bits_of(problem.decode_args());
  in_threads([&](int) -> std::string {
    reference::Buffer scratch("scratch", step.plan().scratch_bytes());
    std::vector<std::byte> out(expected.out.size()), lse(expected.lse.size());
    DecodeArgs args = problem.decode_args();
    args.out.data = out.data(), args.lse.data = lse.data();
    for (int round = 0; round < kRounds; ++round) {
      const Status status = decode(step.plan(), args, step.schedule_memory().memory(), scratch.memory());
      if (!status) return status.message();
      if (Bits{out, lse} != expected) return "other bits than alone";
    }
    return {};
  });
}

TEST(Threads, PlansAndErrorsSideBySide) {
  const PlanConfig good = Problem(spec_of(0)).plan_config();
  in_threads([&](int thread) -> std::string {
    for (int round = 0; round < 200; ++round) {
      PlanConfig config = good;
      config.max_batch = thread;
      if (!plan(config)) return "a good plan failed";
      config.page_size = 1000 + thread;
      const Result<Plan> bad = plan(config);
      if (bad.ok()) return "a bad plan was made";
      if (std::string(bad.status().message()).find(std::to_string(1000 + thread)) == std::string::npos) {
        return bad.status().message();
      }
      if (backends().empty() || kernels().empty() || !device_info({})) return "no backend";
    }
    return {};
  });
}

// Each thread owns a cache: tokens appended, a request forked, decoded, and compared with the reference.
std::string serve_own_cache(int thread) {
  PagedKvCacheConfig config;
  config.num_pages = 16, config.page_size = 32;
  Result<PagedKvCache> cache = PagedKvCache::create(config);
  if (!cache) return cache.status().message();

  ProblemSpec spec;  // q and out, and 50 tokens to append, from a cache of one page
  spec.lengths = {50, 0}, spec.page_size = 64, spec.spare_pages = 0, spec.seed = static_cast<std::uint64_t>(thread) + 1;
  spec.joint_cache = false;
  Problem source(spec);
  const DecodeArgs& from = source.decode_args();
  const auto tokens = [](const TensorView& pages) {
    return TensorView::contiguous(pages.data, pages.dtype, {50, 1, pages.shape[3]});
  };
  const Result<RequestId> first = cache->add();
  if (!first) return first.status().message();
  const std::int32_t count[] = {50};
  Status status = cache->append({&*first, 1}, count, tokens(from.kv_cache), tokens(from.k_rope_cache));
  if (!status) return status.message();
  const Result<RequestId> second = cache->fork(*first);
  if (!second) return second.status().message();

  const RequestId requests[] = {*first, *second};
  std::int32_t table[4], lengths[2];
  if (status = cache->tables(requests, 2, table, lengths); !status) return status.message();
  DecodeArgs args = from;
  args.kv_cache = *cache->layer(0), args.k_rope_cache = {};
  args.block_table = TensorView::contiguous(table, DType::i32, {2, 2});
  args.cache_seqlens = TensorView::contiguous(lengths, DType::i32, {2});
  PlanConfig plan_config = source.plan_config();
  plan_config.page_size = 32;
  Step step(plan_config);
  ScheduleArgs schedule_args = source.schedule_args();
  schedule_args.cache_seqlens = args.cache_seqlens;
  if (status = step.schedule(schedule_args); !status) return status.message();
  if (status = step.decode(args); !status) return status.message();
  const reference::Comparison comparison = reference::compare(args, true);
  return comparison.ok ? "" : comparison.message;
}

TEST(Threads, OwnCaches) {
  in_threads([](int thread) -> std::string {
    for (int round = 0; round < kRounds; ++round) {
      if (std::string failure = serve_own_cache(thread); !failure.empty()) return failure;
    }
    return {};
  });
}

}  // namespace
}  // namespace flash_mla::test
