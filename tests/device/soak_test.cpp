// Minutes of an engine's life: graphs of schedule and decode, replayed on several streams at a time with other lengths
// each step, with empty and padded rows. Every step's results are compared on the GPU with ones that were judged by the
// reference, so a wait that never ends, a stale schedule or a lost row shows within the step.
//
// FLASH_MLA_SOAK_SECONDS says how long; a few seconds without it.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "device/device_problem.h"
#include "device/graph.h"

namespace flash_mla::test {
namespace {

using reference::ProblemSpec;
using reference::Random;
using Clock = std::chrono::steady_clock;

std::chrono::seconds soak_time() {
  const char* seconds = std::getenv("FLASH_MLA_SOAK_SECONDS");
  return std::chrono::seconds(seconds != nullptr ? std::atoi(seconds) : 3);
}

// One engine: a graph on a stream, and steps that it has in stock.
class Engine {
 public:
  Engine(const ProblemSpec& spec, int steps) : problem_(spec), random_(spec.seed) {
    for (int i = 0; i < steps; ++i) add_step(i);
    graph_ = std::make_unique<Graph>(problem_.stream(), [&] { problem_.schedule(), problem_.decode(); });
  }

  // Enqueues a step: other lengths, the graph, the comparison.
  void step() {
    const Stock& stock = stock_[static_cast<std::size_t>(random_.below(static_cast<std::int64_t>(stock_.size())))];
    copy(problem_.args().cache_seqlens.data, stock.lengths);
    if (problem_.spec().ragged) copy(problem_.args().cu_seqlens_q.data, stock.cu_seqlens_q);
    graph_->launch();
    problem_.count_differing(stock.results, wrong_);
    ++steps_;
  }
  [[nodiscard]] std::int64_t wrong_words() { return wrong_.fetch(problem_.stream()); }
  [[nodiscard]] std::int64_t steps() const { return steps_; }
  [[nodiscard]] std::string what() const { return describe(problem_.spec()); }
  // Where and what: out[request, (query token,) head, column], two elements a word; lse[(request,) head, query token].
  [[nodiscard]] std::string first_wrong_words() {
    std::ostringstream text;
    for (const Difference& word : wrong_.first_differences(problem_.stream())) {
      const auto bytes_from = [&](const TensorView& view) {
        return reinterpret_cast<const char*>(word.where) - static_cast<const char*>(view.data);
      };
      const bool is_out = static_cast<std::uint64_t>(bytes_from(problem_.args().out)) <
                          static_cast<std::uint64_t>(problem_.out_bytes());
      const TensorView& view = is_out ? problem_.args().out : problem_.args().lse;
      text << (is_out ? " out" : " lse") << std::dec;
      for (int axis = 0; axis < view.rank; ++axis) {
        text << (axis == 0 ? '[' : ',')
             << bytes_from(view) / size_in_bytes(view.dtype) / view.strides[axis] % view.shape[axis];
      }
      text << std::hex << "] is 0x" << word.found << " for 0x" << word.expected;
    }
    return text.str();
  }

 private:
  struct Stock {
    DeviceMemory lengths, cu_seqlens_q;
    Snapshot results;
  };

  void add_step(int index) {
    const ProblemSpec& spec = problem_.spec();
    Lengths lengths, queries, cumulative = {0};
    for (std::size_t r = 0; r < spec.lengths.size(); ++r) {
      const bool empty = index == 0 || (index > 1 && random_.below(5) == 0);
      lengths.push_back(index == 1 ? spec.lengths[r]
                        : empty    ? 0
                                   : static_cast<std::int32_t>(random_.between(0, spec.lengths[r])));
      if (!spec.ragged) continue;
      queries.push_back(static_cast<std::int32_t>(random_.between(0, spec.queries[r])));
      cumulative.push_back(cumulative.back() + queries.back());
    }
    if (spec.ragged) problem_.set_queries(queries);
    problem_.set_lengths(lengths);
    EXPECT_TRUE(problem_.runs_right(200));
    stock_.push_back({uploaded(lengths), uploaded(cumulative), problem_.snapshot()});
    problem_.synchronize();
  }
  void copy(void* to, const DeviceMemory& from) {
    FLASH_MLA_REQUIRE(
        cudaMemcpyAsync(to, from.data(), static_cast<std::size_t>(from.bytes()), cudaMemcpyDefault, problem_.stream()));
  }

  DeviceProblem problem_;
  Random random_;
  std::vector<Stock> stock_;
  std::unique_ptr<Graph> graph_;
  DeviceCount wrong_;
  std::int64_t steps_ = 0;
};

std::vector<ProblemSpec> specs() {
  Random random(3);
  const auto drawn = [&](int batch, std::int32_t most) {
    Lengths lengths;
    for (int r = 0; r < batch; ++r) lengths.push_back(static_cast<std::int32_t>(random.between(0, most)));
    return lengths;
  };
  std::vector<ProblemSpec> all(5);
  for (std::size_t i = 0; i < all.size(); ++i) all[i].seed = i + 1;
  all[0].lengths = drawn(64, 4000), all[0].num_heads_q = 128;
  all[1].lengths = drawn(16, 8000), all[1].num_heads_q = 16, all[1].seqlen_q = 2, all[1].dtype = DType::f16;
  all[2].lengths = drawn(32, 1500), all[2].num_heads_q = 32, all[2].ragged = true, all[2].page_size = 16;
  for (int r = 0; r < 32; ++r) all[2].queries.push_back(static_cast<std::int32_t>(random.between(0, 5)));
  all[2].padding_queries = 7;
  all[3].lengths = {100000, 0, 3, 64}, all[3].num_heads_q = 128, all[3].page_size = 128;
  all[4].lengths = drawn(300, 200), all[4].num_heads_q = 9, all[4].num_heads_kv = 3, all[4].seqlen_q = 2;
  return all;
}

TEST(Soak, Lessons27EveryReplayedStepIsRight) {
  constexpr int kStock = 24, kStepsBetweenLooks = 200;
  std::vector<std::unique_ptr<Engine>> engines;
  for (const ProblemSpec& spec : specs()) engines.push_back(std::make_unique<Engine>(spec, kStock));
  ASSERT_FALSE(HasFailure());

  const Clock::time_point end = Clock::now() + soak_time();
  std::int64_t steps = 0;
  while (Clock::now() < end) {
    for (int i = 0; i < kStepsBetweenLooks; ++i) {
      for (const auto& engine : engines) engine->step();
    }
    for (const auto& engine : engines) {
      ASSERT_EQ(engine->wrong_words(), 0)
          << "within " << engine->steps() << " steps: " << engine->what() << ':' << engine->first_wrong_words();
    }
  }
  for (const auto& engine : engines) steps += engine->steps();
  RecordProperty("steps", static_cast<int>(steps));
  std::printf("[          ] %lld steps, all right\n", static_cast<long long>(steps));
}

}  // namespace
}  // namespace flash_mla::test
