// Random engines against a naive model: each request is the list of its tokens. After every operation the cache must
// hold those very tokens in every layer, count its pages as the block tables say, and take from the pool exactly what
// an independent count predicts. In half of the runs storage and memory fail now and then, and then nothing may have
// changed.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "allocation_count.h"
#include "fake_storage.h"

namespace flash_mla {
namespace {

using test::FakeCache;
using test::FakeStorage;

constexpr std::int32_t kPage = 16, kPages = 24;
constexpr std::int64_t kUnknown = -2;  // a token that was grown but never written

struct Run {
  std::int32_t layers;
  bool failures;
  std::uint32_t seed;
};

class Engine {
 public:
  explicit Engine(const Run& run)
      : run_(run),
        random_(run.seed),
        fake_(FakeCache::make({.num_layers = run.layers, .num_pages = kPages, .page_size = kPage})) {}

  void step() {
    inject();
    switch (pick(10)) {
      case 0:
        return add();
      case 1:
        return fork();
      case 2:
        return pick(3) == 0 ? remove() : truncate();
      case 3:
        return write();
      case 4:
        return bad_call();
      default:
        return grow();
    }
  }

  // Compares everything that can be seen with the model.
  void check() {
    memory_failure_.reset();
    ASSERT_EQ(fake_.cache.stats().requests, static_cast<std::int64_t>(model_.size()));
    const std::map<RequestId, std::vector<std::int32_t>> tables = read_tables();
    std::map<std::int32_t, int> references;
    std::map<std::int32_t, std::int64_t> filled;
    std::int64_t tokens = 0;
    for (const auto& [id, contents] : model_) {
      const std::vector<std::int32_t>& pages = tables.at(id);
      ASSERT_EQ(*fake_.cache.length(id), static_cast<std::int64_t>(contents.size()));
      ASSERT_EQ(pages.size(), (contents.size() + kPage - 1) / kPage);
      for (std::size_t i = 0; i < pages.size(); ++i) {
        ++references[pages[i]];
        const auto in_page = std::min<std::int64_t>(kPage, static_cast<std::int64_t>(contents.size()) - i * kPage);
        filled[pages[i]] = std::max(filled[pages[i]], in_page);
      }
      for (std::size_t t = 0; t < contents.size(); ++t) {
        if (contents[t] == kUnknown) continue;
        for (std::int32_t layer = 0; layer < run_.layers; ++layer) {
          ASSERT_EQ(stored(layer, pages[t / kPage], t), contents[t]) << "token " << t << " layer " << layer;
        }
      }
      tokens += static_cast<std::int64_t>(contents.size());
    }
    const PagedKvCacheStats stats = fake_.cache.stats();
    std::int64_t distinct = 0;
    for (const auto& [page, rows] : filled) distinct += rows;
    ASSERT_EQ(stats.pages_in_use, static_cast<int>(references.size()));
    ASSERT_EQ(fake_.cache.free_pages(), kPages - static_cast<int>(references.size()));
    ASSERT_EQ(stats.pages_shared,
              std::count_if(references.begin(), references.end(), [](const auto& entry) { return entry.second > 1; }));
    ASSERT_EQ(stats.tokens, tokens);
    ASSERT_EQ(stats.tokens_stored, distinct);
  }

  void finish() {
    memory_failure_.reset();
    while (!model_.empty()) {
      ASSERT_TRUE(fake_.cache.remove(model_.begin()->first).ok());
      model_.erase(model_.begin());
    }
    ASSERT_EQ(fake_.cache.free_pages(), kPages);
  }

  std::map<StatusCode, int> outcomes;  // of growing
  int shared_writes = 0;

 private:
  using Table = std::vector<std::int32_t>;
  struct Call {
    std::vector<RequestId> ids;
    std::vector<std::int32_t> counts;
  };

  int pick(int n) { return static_cast<int>(random_() % n); }
  RequestId pick_request() { return std::next(model_.begin(), pick(static_cast<int>(model_.size())))->first; }

  std::int64_t stored(std::int32_t layer, std::int32_t page, std::size_t token) const {
    return fake_.storage->token(layer, std::int64_t{page} * kPage + token % kPage);
  }

  // Arms a failure for the next call.
  void inject() {
    fake_.storage->fail_next_copy = fake_.storage->fail_next_append = false;
    memory_fails_ = false;
    if (!run_.failures) return;
    fake_.storage->fail_next_copy = pick(8) == 0;
    fake_.storage->fail_next_append = pick(8) == 0;
    memory_fails_ = pick(4) == 0;
  }

  // The call under test: memory fails inside it and nowhere else.
  template <class F>
  auto under_failures(F&& call) {
    if (memory_fails_) memory_failure_.emplace(pick(3));
    auto result = call();
    memory_failure_.reset();
    return result;
  }

  bool may_fail(StatusCode code) const { return run_.failures && code == StatusCode::out_of_memory; }
  void expect_injected(const Status& status) const { ASSERT_TRUE(may_fail(status.code())) << status.message(); }

  std::map<RequestId, Table> read_tables() {
    std::map<RequestId, Table> tables;
    for (const auto& entry : model_) {
      Table table(*fake_.cache.max_pages(std::span(&entry.first, 1)));
      std::int32_t length = 0;
      EXPECT_TRUE(
          fake_.cache
              .tables(std::span(&entry.first, 1), static_cast<std::int64_t>(table.size()), table, std::span(&length, 1))
              .ok());
      tables[entry.first] = table;
    }
    return tables;
  }

  static std::map<std::int32_t, int> count_references(const std::map<RequestId, Table>& tables) {
    std::map<std::int32_t, int> references;
    for (const auto& [id, table] : tables) {
      for (std::int32_t page : table) ++references[page];
    }
    return references;
  }

  // Pages that growing takes: new ones, and for each shared, partly filled last page one copy per request that grows,
  // less one if nobody else references it.
  std::int64_t predict(const Call& call, const std::map<RequestId, Table>& tables) {
    std::map<std::int32_t, int> references = count_references(tables), growing;
    std::int64_t needed = 0;
    for (std::size_t i = 0; i < call.ids.size(); ++i) {
      const std::size_t length = model_.at(call.ids[i]).size();
      needed += (length + call.counts[i] + kPage - 1) / kPage - (length + kPage - 1) / kPage;
      if (call.counts[i] > 0 && length % kPage != 0) ++growing[tables.at(call.ids[i]).back()];
    }
    for (const auto& [page, n] : growing) needed += references[page] > n ? n : n - 1;
    return needed;
  }

  Call pick_call(int max_tokens) {
    Call call;
    for (const auto& entry : model_) {
      if (pick(3) == 0) continue;
      call.ids.push_back(entry.first);
    }
    std::shuffle(call.ids.begin(), call.ids.end(), random_);
    for (std::size_t i = 0; i < call.ids.size(); ++i) {
      call.counts.push_back(pick(5) == 0 ? pick(max_tokens) : pick(3));
    }
    return call;
  }

  std::vector<std::int64_t> fresh_tokens(const Call& call) {
    std::int64_t n = 0;
    for (std::int32_t count : call.counts) n += count;
    std::vector<std::int64_t> tokens(n);
    for (std::int64_t& token : tokens) token = ++last_token_;
    return tokens;
  }

  void add() {
    if (model_.size() >= 12) return;
    const Result<RequestId> id = under_failures([&] { return fake_.cache.add(); });
    if (!id.ok()) return expect_injected(id.status());
    ASSERT_TRUE(seen_.insert(*id).second) << "an id returned";
    model_[*id] = {};
  }

  void fork() {
    if (model_.empty() || model_.size() >= 12) return;
    const RequestId parent = pick_request();
    const Result<RequestId> id = under_failures([&] { return fake_.cache.fork(parent); });
    if (!id.ok()) return expect_injected(id.status());
    ASSERT_TRUE(seen_.insert(*id).second) << "an id returned";
    model_[*id] = model_[parent];
  }

  void remove() {
    if (model_.empty()) return;
    const RequestId id = pick_request();
    ASSERT_TRUE(under_failures([&] { return fake_.cache.remove(id); }).ok());
    model_.erase(id);
    stale_ = id;
  }

  void truncate() {
    if (model_.empty()) return;
    const RequestId id = pick_request();
    std::vector<std::int64_t>& contents = model_[id];
    const std::size_t length = pick(2) ? pick(static_cast<int>(contents.size()) + 1)
                                       : contents.size() - std::min<std::size_t>(contents.size(), pick(4));
    ASSERT_TRUE(under_failures([&] { return fake_.cache.truncate(id, static_cast<std::int64_t>(length)); }).ok());
    contents.resize(length);
  }

  void grow() {
    const Call call = pick_call(40);
    const std::map<RequestId, Table> before = read_tables();
    const std::int64_t needed = predict(call, before);
    const std::int32_t free = fake_.cache.free_pages();
    ASSERT_EQ(*fake_.cache.pages_needed(call.ids, call.counts), needed);
    const bool append = run_.layers == 1 && pick(2);
    std::vector<std::int64_t> tokens = fresh_tokens(call);
    const TensorView rows = test::as_rows(tokens);
    const Status status = under_failures([&] {
      return append ? fake_.cache.append(call.ids, call.counts, rows, rows) : fake_.cache.grow(call.ids, call.counts);
    });
    ++outcomes[status.code()];
    const std::map<RequestId, Table> after = read_tables();
    if (!status.ok()) {
      if (status.code() == StatusCode::out_of_pages) {
        ASSERT_GT(needed, free);
      } else {
        ASSERT_TRUE(run_.failures) << status.message();
      }
      // append() keeps its page copies when the device fails while it writes.
      if (append && status.code() == StatusCode::device_error) return;
      ASSERT_EQ(before, after);
      return;
    }
    ASSERT_LE(needed, free);
    ASSERT_EQ(fake_.cache.free_pages(), free - needed);
    for (const auto& [id, table] : before) check_unmoved(table, after.at(id), model_[id].size());
    for (std::size_t i = 0; i < call.ids.size(); ++i) {
      model_[call.ids[i]].insert(model_[call.ids[i]].end(), call.counts[i], kUnknown);
    }
    if (append) {
      remember(call, tokens);
    } else if (pick(4)) {
      write_all_layers(call, tokens);
    }
  }

  // Full pages stay where they are.
  static void check_unmoved(const Table& before, const Table& after, std::size_t length) {
    for (std::size_t i = 0; i < length / kPage; ++i) ASSERT_EQ(before[i], after[i]);
  }

  void write() {
    Call call = pick_call(20);
    bool shared = false;
    const std::map<RequestId, Table> tables = read_tables();
    std::map<std::int32_t, int> references = count_references(tables);
    for (std::size_t i = 0; i < call.ids.size(); ++i) {
      const std::size_t length = model_[call.ids[i]].size();
      call.counts[i] = std::min(call.counts[i], static_cast<std::int32_t>(length));
      for (std::size_t t = length - call.counts[i]; t < length; ++t) {
        shared = shared || references[tables.at(call.ids[i])[t / kPage]] > 1;
      }
    }
    std::vector<std::int64_t> tokens = fresh_tokens(call);
    if (!shared) return write_all_layers(call, tokens);
    ++shared_writes;
    const TensorView rows = test::as_rows(tokens);
    const Status status = under_failures([&] { return fake_.cache.write(0, call.ids, call.counts, rows, rows); });
    ASSERT_TRUE(status.code() == StatusCode::invalid_argument || may_fail(status.code())) << status.message();
  }

  void write_all_layers(const Call& call, std::vector<std::int64_t>& tokens) {
    fake_.storage->fail_next_append = false;  // half-written tokens would have no defined contents
    const TensorView rows = test::as_rows(tokens);
    for (std::int32_t layer = 0; layer < run_.layers; ++layer) {
      ASSERT_TRUE(fake_.cache.write(layer, call.ids, call.counts, rows, rows).ok());
    }
    remember(call, tokens);
  }

  void remember(const Call& call, const std::vector<std::int64_t>& tokens) {
    auto from = tokens.begin();
    for (std::size_t i = 0; i < call.ids.size(); ++i) {
      std::vector<std::int64_t>& contents = model_[call.ids[i]];
      std::copy(from, from + call.counts[i], contents.end() - call.counts[i]);
      from += call.counts[i];
    }
  }

  void bad_call() {
    Call call = pick_call(20);
    const int kind = pick(3);
    if (kind == 0) {
      if (!stale_) return;
      call.ids.push_back(*stale_), call.counts.push_back(1);
    } else if (kind == 1) {
      if (call.ids.empty()) return;
      call.ids.push_back(call.ids[0]), call.counts.push_back(1);
    } else {
      if (call.ids.empty()) return;
      call.counts.back() = -1 - pick(100);
    }
    const Status status = under_failures([&] { return fake_.cache.grow(call.ids, call.counts); });
    ASSERT_TRUE(status.code() == StatusCode::invalid_argument || may_fail(status.code())) << status.message();
  }

  Run run_;
  std::mt19937 random_;
  FakeCache fake_;
  std::map<RequestId, std::vector<std::int64_t>> model_;
  std::set<RequestId> seen_;
  std::optional<RequestId> stale_;
  std::optional<test::FailAllocations> memory_failure_;
  bool memory_fails_ = false;
  std::int64_t last_token_ = 0;
};

class ModelTest : public ::testing::TestWithParam<Run> {};

TEST_P(ModelTest, AgreesWithTheCache) {
  Engine engine(GetParam());
  for (int i = 0; i < 50000; ++i) {
    SCOPED_TRACE(i);
    engine.step();
    if (HasFatalFailure()) return;
    engine.check();
    if (HasFatalFailure()) return;
  }
  engine.finish();
  // The run met what it was made for.
  EXPECT_GT(engine.outcomes[StatusCode::ok], 1000);
  EXPECT_GT(engine.outcomes[StatusCode::out_of_pages], 500);
  EXPECT_GT(engine.shared_writes, 100);
  if (GetParam().failures) {
    EXPECT_GT(engine.outcomes[StatusCode::device_error], 30);
    EXPECT_GT(engine.outcomes[StatusCode::out_of_memory], 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Runs, ModelTest,
                         ::testing::Values(Run{1, false, 1}, Run{2, false, 2}, Run{1, true, 3}, Run{2, true, 4}),
                         [](const auto& info) {
                           return std::to_string(info.param.layers) + (info.param.layers == 1 ? "Layer" : "Layers") +
                                  (info.param.failures ? "WithFailures" : "");
                         });

}  // namespace
}  // namespace flash_mla
