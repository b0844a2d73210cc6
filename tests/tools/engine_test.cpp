// Continuous batching: who enters, grows, is preempted and resumed, and that nobody is lost.
#include "replay/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "support/errors.h"
#include "support/random.h"

namespace flash_mla::tools {
namespace {

PagedKvCache make_pool(std::int32_t pages, std::int32_t page_size) {
  PagedKvCacheConfig config;
  config.num_pages = pages;
  config.page_size = page_size;
  return must(PagedKvCache::create(config), "create");
}

std::vector<TraceRequest> random_requests(std::int64_t n, std::int64_t most_context, std::int64_t most_generated,
                                          std::uint64_t seed) {
  std::vector<TraceRequest> requests;
  Random random(seed);
  for (std::int64_t i = 0; i < n; ++i) {
    requests.push_back({random.below(most_context + 1), random.below(most_generated + 1), 0});
  }
  return requests;
}

// What must hold while a batch is formed.
void expect_consistent(const Engine& engine, std::span<const TraceRequest> requests, const PagedKvCache& pool,
                       std::int32_t max_batch) {
  ASSERT_LE(engine.running().size(), static_cast<std::size_t>(max_batch));
  std::int64_t pages = 0, previous = -1;
  for (const RunningRequest& request : engine.running()) {
    EXPECT_GT(request.index, previous) << "not in order of arrival";
    previous = request.index;
    const TraceRequest& wanted = requests[static_cast<std::size_t>(request.index)];
    EXPECT_EQ(request.length, wanted.context_tokens + request.generated + 1);
    EXPECT_EQ(must(pool.length(request.id), "length"), request.length);
    EXPECT_TRUE(request.new_tokens == 1 || request.new_tokens == request.length);
    EXPECT_LT(request.generated, wanted.generated_tokens);
    pages += (request.length + pool.config().page_size - 1) / pool.config().page_size;
  }
  EXPECT_EQ(pages, pool.stats().pages_in_use);
  const EngineCounts counts = engine.counts();
  EXPECT_EQ(counts.finished + counts.running + counts.waiting, counts.requests);
}

struct Case {
  std::int32_t pages, page_size, max_batch;
  bool preempts;
};

class EngineServes : public testing::TestWithParam<Case> {};

TEST_P(EngineServes, EveryRequestToItsEnd) {
  const Case c = GetParam();
  const std::vector<TraceRequest> requests = random_requests(200, 300, 60, 3);
  PagedKvCache pool = make_pool(c.pages, c.page_size);
  Engine engine(requests, c.max_batch, pool);
  std::int64_t steps = 0;
  while (!engine.done()) {
    engine.begin_step();
    expect_consistent(engine, requests, pool, c.max_batch);
    if (HasFatalFailure()) return;
    engine.end_step();
    ASSERT_LT(++steps, 100000);
  }
  const EngineCounts counts = engine.counts();
  EXPECT_EQ(counts.entered, 200);
  EXPECT_EQ(counts.finished, 200);
  EXPECT_EQ(counts.waiting + counts.running + counts.waiting_preempted, 0);
  EXPECT_EQ(counts.preemptions, counts.resumptions);
  EXPECT_EQ(counts.preemptions > 0, c.preempts) << counts.preemptions;
  EXPECT_EQ(counts.recomputed_tokens > 0, c.preempts);
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(engine.generated()[i], requests[i].generated_tokens) << i;
    tokens += requests[i].generated_tokens;
  }
  EXPECT_EQ(counts.generated_tokens, tokens);
  EXPECT_EQ(pool.free_pages(), c.pages);
  EXPECT_EQ(pool.stats().requests, 0);
}

INSTANTIATE_TEST_SUITE_P(Pools, EngineServes,
                         testing::Values(Case{23, 16, 64, true},     // one long request fills it
                                         Case{60, 16, 64, true},     //
                                         Case{6, 64, 64, true},      //
                                         Case{400, 16, 64, true},    //
                                         Case{4000, 16, 64, false},  // more than the batch can use
                                         Case{23, 16, 1, false},     // one at a time
                                         Case{200, 32, 7, false}));

TEST(Engine, EntersInOrderOfArrivalWithoutOvertaking) {
  // The second does not fit beside the first, the third would.
  const std::vector<TraceRequest> requests = {{100, 5, 0}, {100, 5, 0}, {10, 5, 0}};
  PagedKvCache pool = make_pool(10, 16);
  Engine engine(requests, 8, pool);
  engine.begin_step();
  ASSERT_EQ(engine.running().size(), 1u);
  EXPECT_EQ(engine.running()[0].index, 0);
  for (int step = 0; step < 5; ++step) engine.end_step(), engine.begin_step();
  ASSERT_EQ(engine.running().size(), 2u);
  EXPECT_EQ(engine.running()[0].index, 1);
  EXPECT_EQ(engine.running()[1].index, 2);
}

TEST(Engine, PreemptsTheYoungestAndResumesItWithItsTokens) {
  // Both start with one page of 16 and grow; three pages hold them only until both need a second.
  const std::vector<TraceRequest> requests = {{13, 30, 0}, {12, 30, 0}};
  PagedKvCache pool = make_pool(3, 16);
  Engine engine(requests, 8, pool);
  std::int64_t preempted_at = -1, resumed_with = -1;
  for (int step = 0; !engine.done(); ++step) {
    engine.begin_step();
    EXPECT_EQ(engine.running()[0].index, engine.counts().finished) << "the oldest always runs";
    if (preempted_at < 0 && engine.counts().preemptions == 1) preempted_at = engine.generated()[1];
    for (const RunningRequest& request : engine.running()) {
      if (request.index == 1 && engine.counts().resumptions == 1 && resumed_with < 0) {
        resumed_with = request.generated;
        EXPECT_EQ(request.new_tokens, 12 + resumed_with + 1) << "its whole cache is written again";
      }
    }
    engine.end_step();
  }
  EXPECT_GT(preempted_at, 0);
  EXPECT_EQ(resumed_with, preempted_at);
  EXPECT_EQ(engine.counts().finished, 2);
}

TEST(Engine, RequestsWithoutOutputComeAndGo) {
  const std::vector<TraceRequest> requests = {{100, 0, 0}, {0, 1, 0}, {5, 0, 0}};
  PagedKvCache pool = make_pool(8, 16);
  Engine engine(requests, 8, pool);
  engine.begin_step();
  ASSERT_EQ(engine.running().size(), 1u);
  EXPECT_EQ(engine.running()[0].length, 1);
  engine.end_step();
  EXPECT_TRUE(engine.done());
  EXPECT_EQ(engine.counts().finished, 3);
}

TEST(Engine, RefusesWhatCanNeverFit) {
  const std::vector<TraceRequest> requests = {{100, 30, 0}};
  PagedKvCache pool = make_pool(8, 16);
  EXPECT_THROW(Engine(requests, 8, pool), RunError);
}

}  // namespace
}  // namespace flash_mla::tools
