// Behaviour of the cache that the header promises, case by case, on a storage of numbers.
#include "flash_mla/paged_kv_cache.h"

#include <gtest/gtest.h>

#include <climits>
#include <numeric>
#include <string>
#include <vector>

#include "allocation_count.h"
#include "fake_storage.h"

namespace flash_mla {
namespace {

using test::FakeCache;
using test::FakeStorage;

constexpr std::int32_t kPage = 16;

class CacheTest : public ::testing::Test {
 protected:
  void make(std::int32_t num_pages, std::int32_t num_layers = 1) {
    fake.emplace(FakeCache::make({.num_layers = num_layers, .num_pages = num_pages, .page_size = kPage}));
  }
  PagedKvCache& cache() { return fake->cache; }

  RequestId add(std::int32_t tokens = 0) {
    const RequestId id = *cache().add();
    EXPECT_TRUE(grow(id, tokens).ok());
    return id;
  }
  Status grow(RequestId id, std::int32_t tokens) { return cache().grow(std::span(&id, 1), std::span(&tokens, 1)); }
  // grow and write `first`, `first` + 1, ... in every layer
  void append(RequestId id, std::int32_t tokens, std::int64_t first) {
    ASSERT_TRUE(grow(id, tokens).ok());
    std::vector<std::int64_t> numbers(tokens);
    std::iota(numbers.begin(), numbers.end(), first);
    for (std::int32_t layer = 0; layer < cache().config().num_layers; ++layer) {
      const TensorView rows = test::as_rows(numbers);
      ASSERT_TRUE(cache().write(layer, std::span(&id, 1), std::span(&tokens, 1), rows, rows).ok());
    }
  }
  std::vector<std::int32_t> pages(RequestId id) {
    const std::int64_t columns = *cache().max_pages(std::span(&id, 1));
    std::vector<std::int32_t> table(columns);
    std::int32_t length = 0;
    EXPECT_TRUE(cache().tables(std::span(&id, 1), columns, table, std::span(&length, 1)).ok());
    return table;
  }
  std::int64_t token(RequestId id, std::int64_t t, std::int32_t layer = 0) {
    return fake->storage->token(layer, std::int64_t{pages(id)[t / kPage]} * kPage + t % kPage);
  }
  Result<std::int64_t> needed(std::vector<RequestId> ids, std::vector<std::int32_t> counts) {
    return cache().pages_needed(ids, counts);
  }
  static void expect_error(const Status& status, StatusCode code, const std::string& part) {
    EXPECT_EQ(status.code(), code) << status.message();
    EXPECT_NE(std::string(status.message()).find(part), std::string::npos) << status.message() << " lacks " << part;
  }
  static std::string text(RequestId id) { return std::to_string(static_cast<std::int64_t>(id)); }

  std::optional<FakeCache> fake;
};

TEST_F(CacheTest, PagesComeOnDemandAndGoAtOnce) {
  make(4);
  const RequestId a = add();
  EXPECT_EQ(cache().free_pages(), 4);
  ASSERT_TRUE(grow(a, 1).ok());
  EXPECT_EQ(cache().free_pages(), 3);
  ASSERT_TRUE(grow(a, kPage - 1).ok());
  EXPECT_EQ(cache().free_pages(), 3);
  const std::vector<std::int32_t> before = pages(a);
  ASSERT_TRUE(grow(a, kPage + 1).ok());
  EXPECT_EQ(cache().free_pages(), 1);
  EXPECT_EQ(pages(a)[0], before[0]);  // never moved
  ASSERT_TRUE(cache().truncate(a, kPage).ok());
  EXPECT_EQ(cache().free_pages(), 3);
  ASSERT_TRUE(cache().remove(a).ok());
  EXPECT_EQ(cache().free_pages(), 4);
}

TEST_F(CacheTest, ForkCopiesNothingAndWriteCopiesOnlyThePartlyFilledPage) {
  make(8, 3);
  const RequestId a = add();
  append(a, 2 * kPage + 5, 100);
  const RequestId b = *cache().fork(a);
  EXPECT_EQ(cache().free_pages(), 5);
  EXPECT_EQ(cache().stats().pages_shared, 3);
  append(b, 1, 900);
  EXPECT_EQ(cache().free_pages(), 4);
  EXPECT_EQ(fake->storage->pages_copied, 1);
  EXPECT_EQ(cache().stats().pages_shared, 2);  // the full ones stay shared
  append(a, 1, 700);                           // alone on its last page now: no copy
  EXPECT_EQ(fake->storage->pages_copied, 1);
  for (std::int32_t layer = 0; layer < 3; ++layer) {
    for (std::int64_t t = 0; t < 2 * kPage + 5; ++t) {
      EXPECT_EQ(token(a, t, layer), 100 + t);
      EXPECT_EQ(token(b, t, layer), 100 + t);
    }
    EXPECT_EQ(token(a, 2 * kPage + 5, layer), 700);
    EXPECT_EQ(token(b, 2 * kPage + 5, layer), 900);
  }
}

TEST_F(CacheTest, ForkOfAFullPageSharesItForGood) {
  make(4);
  const RequestId a = add(kPage), b = *cache().fork(a);
  ASSERT_TRUE(grow(b, 1).ok());
  EXPECT_EQ(fake->storage->pages_copied, 0);
  EXPECT_EQ(pages(a)[0], pages(b)[0]);
}

TEST_F(CacheTest, OfThoseThatGrowTogetherTheLastKeepsThePage) {
  make(8);
  const RequestId a = add(5), b = *cache().fork(a), c = *cache().fork(a);
  EXPECT_EQ(*needed({a, b}, {1, 1}), 2);        // c stays on the page
  EXPECT_EQ(*needed({a, b, c}, {1, 1, 1}), 2);  // c keeps it
  EXPECT_EQ(*needed({a, b, c}, {1, 0, 1}), 2);  // b stays on it
  EXPECT_EQ(*needed({a, b, c}, {1, 1, kPage}), 3);
  const std::vector<RequestId> ids = {a, b, c};
  const std::vector<std::int32_t> counts = {1, 1, 1};
  ASSERT_TRUE(cache().grow(ids, counts).ok());
  EXPECT_EQ(cache().free_pages(), 5);
  EXPECT_EQ(fake->storage->pages_copied, 2);
  EXPECT_EQ(cache().stats().pages_shared, 0);
}

TEST_F(CacheTest, TruncateIntoSharedPagesThenGrowCopies) {
  make(8);
  const RequestId a = add();
  append(a, 2 * kPage, 0);
  const RequestId b = *cache().fork(a);
  ASSERT_TRUE(cache().truncate(b, 10).ok());
  EXPECT_EQ(cache().free_pages(), 6);
  EXPECT_EQ(cache().stats().tokens_stored, 2 * kPage);
  append(b, 2, 500);
  for (std::int64_t t = 0; t < 2 * kPage; ++t) EXPECT_EQ(token(a, t), t);
  for (std::int64_t t = 0; t < 10; ++t) EXPECT_EQ(token(b, t), t);
  EXPECT_EQ(token(b, 10), 500);
  // Both partly filled and growing: whoever keeps the page, both must be right.
  const RequestId c = *cache().fork(b);
  ASSERT_TRUE(cache().truncate(c, 3).ok());
  const std::vector<RequestId> ids = {b, c};
  const std::vector<std::int32_t> counts = {1, 1};
  EXPECT_EQ(*needed(ids, counts), 1);
  std::vector<std::int64_t> numbers = {600, 700};
  ASSERT_TRUE(cache().append(ids, counts, test::as_rows(numbers), test::as_rows(numbers)).ok());
  EXPECT_EQ(token(b, 11), 501);
  EXPECT_EQ(token(b, 12), 600);
  EXPECT_EQ(token(c, 2), 2);
  EXPECT_EQ(token(c, 3), 700);
}

TEST_F(CacheTest, OutOfPagesLeavesEverybodyAsTheyWere) {
  make(4);
  const RequestId a = add(kPage), b = add(5), c = *cache().fork(b);
  const std::vector<RequestId> ids = {a, b, c};
  const std::vector<std::int32_t> counts = {1, kPage, 1};  // a: 1, b: 1 + a copy, c keeps the page
  EXPECT_EQ(*needed(ids, counts), 3);
  const auto before = pages(b);
  const Status status = cache().grow(ids, counts);
  expect_error(status, StatusCode::out_of_pages, "3 pages are needed, 2 of 4 are free");
  EXPECT_EQ(*cache().length(a), kPage);
  EXPECT_EQ(*cache().length(b), 5);
  EXPECT_EQ(pages(b), before);
  EXPECT_EQ(cache().free_pages(), 2);
  EXPECT_EQ(fake->storage->pages_copied, 0);
  EXPECT_TRUE(grow(a, 2 * kPage).ok());  // exactly what is left
}

TEST_F(CacheTest, AFailedCopyLeavesEverybodyAsTheyWere) {
  make(4, 2);
  const RequestId a = add();
  append(a, 5, 10);
  const RequestId b = *cache().fork(a);
  fake->storage->fail_next_copy = true;
  EXPECT_EQ(grow(b, 1).code(), StatusCode::device_error);
  EXPECT_EQ(cache().free_pages(), 3);
  EXPECT_EQ(pages(a), pages(b));
  EXPECT_TRUE(grow(b, 1).ok());
  for (std::int64_t t = 0; t < 5; ++t) EXPECT_EQ(token(b, t, 1), 10 + t);
}

TEST_F(CacheTest, AFailedAppendTakesItsTokensBack) {
  make(4);
  const RequestId a = add();
  append(a, 5, 10);
  const RequestId b = *cache().fork(a);
  ASSERT_TRUE(cache().truncate(b, 2).ok());
  std::vector<std::int64_t> numbers(8, 999);
  const std::vector<RequestId> ids = {a, b};
  const std::vector<std::int32_t> counts = {4, 4};
  fake->storage->fail_next_append = true;
  const TensorView rows = test::as_rows(numbers);
  EXPECT_EQ(cache().append(ids, counts, rows, rows).code(), StatusCode::device_error);
  EXPECT_EQ(*cache().length(a), 5);
  EXPECT_EQ(*cache().length(b), 2);
  for (std::int64_t t = 0; t < 5; ++t) EXPECT_EQ(token(a, t), 10 + t);
  for (std::int64_t t = 0; t < 2; ++t) EXPECT_EQ(token(b, t), 10 + t);
}

TEST_F(CacheTest, BadTensorsOfAppendChangeNothingAtAll) {
  make(4);
  const RequestId a = add(5), b = *cache().fork(a);
  std::vector<std::int64_t> numbers(2, 7);
  const std::int32_t two = 2;
  const TensorView good = test::as_rows(numbers);
  const auto try_append = [&](const TensorView& c_kv, const TensorView& k_pe) {
    return cache().append(std::span(&b, 1), std::span(&two, 1), c_kv, k_pe);
  };
  TensorView wrong_type = good, short_rows = good, null = good, far = good;
  wrong_type.dtype = DType::f32;
  short_rows.shape[0] = 1;
  null.data = nullptr;
  far.strides[0] = INT64_MAX;
  expect_error(try_append(wrong_type, good), StatusCode::invalid_argument, "c_kv.dtype");
  expect_error(try_append(good, short_rows), StatusCode::invalid_argument, "k_pe has rank 3 and 1 rows");
  expect_error(try_append(null, good), StatusCode::invalid_argument, "c_kv.data is null");
  expect_error(try_append(far, good), StatusCode::invalid_argument, "c_kv.strides[0] is 9223372036854775807");
  expect_error(try_append(TensorView{}, good), StatusCode::invalid_argument, "c_kv has rank 0");
  EXPECT_EQ(cache().free_pages(), 3);
  EXPECT_EQ(fake->storage->pages_copied, 0);
  EXPECT_TRUE(try_append(good, good).ok());
}

TEST_F(CacheTest, BadIdsAreNamed) {
  make(4);
  const RequestId a = add(1), gone = add(1);
  ASSERT_TRUE(cache().remove(gone).ok());
  const RequestId reborn = add(1);  // takes the slot of `gone`
  const std::string stale = text(gone) + ", a request that was removed";
  expect_error(cache().remove(gone), StatusCode::invalid_argument, "request is " + stale);
  expect_error(cache().truncate(gone, 0), StatusCode::invalid_argument, stale);
  expect_error(cache().length(gone).status(), StatusCode::invalid_argument, stale);
  expect_error(cache().fork(gone).status(), StatusCode::invalid_argument, "parent is " + stale);
  expect_error(needed({a, gone}, {1, 1}).status(), StatusCode::invalid_argument, "requests[1] is " + stale);
  expect_error(grow(RequestId{-7}, 1), StatusCode::invalid_argument, "requests[0] is -7, which is no request");
  const std::vector<RequestId> ids = {a, reborn, a};
  const std::vector<std::int32_t> counts = {1, 1, 1};
  const std::string twice = "requests[2] is " + text(a) + ", which occurs twice";
  std::vector<std::int64_t> out(3);
  expect_error(cache().grow(ids, counts), StatusCode::invalid_argument, twice);
  expect_error(cache().slots(ids, counts, out), StatusCode::invalid_argument, twice);
  expect_error(cache().pages_needed(ids, counts).status(), StatusCode::invalid_argument, twice);
  EXPECT_EQ(*cache().max_pages(ids), 1);  // reading accepts it
  EXPECT_EQ(*cache().length(a), 1);
}

TEST_F(CacheTest, BadNumbersAreNamed) {
  make(4, 2);
  const RequestId a = add(5), b = add(1);
  expect_error(grow(a, -1), StatusCode::invalid_argument, "num_tokens[0] is -1");
  expect_error(grow(a, INT_MAX), StatusCode::invalid_argument, "num_tokens[0] is 2147483647");
  expect_error(grow(b, INT_MAX - 100), StatusCode::out_of_pages, "pages are needed");
  expect_error(cache().truncate(a, 6), StatusCode::invalid_argument, "length is 6");
  expect_error(cache().truncate(a, -1), StatusCode::invalid_argument, "length is -1");
  expect_error(cache().layer(2).status(), StatusCode::invalid_argument, "layer is 2; the cache has 2 layers");
  const std::vector<RequestId> ids = {a, b};
  const std::vector<std::int32_t> one = {1}, counts = {6, 1};
  expect_error(cache().grow(ids, one), StatusCode::invalid_argument, "num_tokens has 1 entries, but requests has 2");
  std::vector<std::int64_t> out(7);
  expect_error(cache().slots(ids, counts, out), StatusCode::invalid_argument, "num_tokens[0] is 6");
  expect_error(cache().write(-1, ids, counts, {}, {}), StatusCode::invalid_argument, "layer is -1");
  expect_error(cache().append(ids, counts, {}, {}), StatusCode::invalid_argument, "num_layers is 2");
  std::vector<std::int32_t> table(4), lengths(2), one_length(1);
  expect_error(cache().tables(ids, 0, table, lengths), StatusCode::invalid_argument, "columns is 0");
  expect_error(cache().tables(ids, -1, table, lengths), StatusCode::invalid_argument, "columns is -1");
  expect_error(cache().tables(ids, 3, table, lengths), StatusCode::invalid_argument, "block_table has 4 entries");
  expect_error(cache().tables(ids, INT64_MAX, table, lengths), StatusCode::invalid_argument, "block_table has 4");
  expect_error(cache().tables(ids, 2, table, one_length), StatusCode::invalid_argument, "cache_seqlens has 1");
  EXPECT_TRUE(cache().tables(ids, 2, table, lengths).ok());
  EXPECT_EQ(lengths, (std::vector<std::int32_t>{5, 1}));
  EXPECT_EQ(table, (std::vector<std::int32_t>{0, -1, 1, -1}));
}

TEST_F(CacheTest, WritingIntoASharedPageIsAnError) {
  make(4);
  const RequestId a = add(kPage + 2), b = *cache().fork(a);
  std::vector<std::int64_t> numbers(3, 7);
  const std::int32_t three = 3;
  const TensorView rows = test::as_rows(numbers);
  const Status status = cache().write(0, std::span(&b, 1), std::span(&three, 1), rows, rows);
  expect_error(status, StatusCode::invalid_argument, "its token 15 lies in page 0, which 2 requests share");
  ASSERT_TRUE(cache().remove(a).ok());
  EXPECT_TRUE(cache().write(0, std::span(&b, 1), std::span(&three, 1), rows, rows).ok());
}

TEST_F(CacheTest, LongWritesAreCutIntoRuns) {
  make(1000);
  const RequestId a = add();
  append(a, 3, 0);
  append(a, 2 * static_cast<std::int32_t>(kMaxIndices) + 77, 3);
  const std::vector<std::int32_t> table = pages(a);
  for (std::int64_t t = 0; t < *cache().length(a); ++t) {
    ASSERT_EQ(fake->storage->token(0, std::int64_t{table[t / kPage]} * kPage + t % kPage), t);
  }
}

TEST_F(CacheTest, StatisticsCountSharedPagesAndTokensOnce) {
  make(10);
  EXPECT_EQ(cache().stats().internal_fragmentation, 0);
  const RequestId a = add(kPage + 4), b = *cache().fork(a), c = *cache().fork(a);
  ASSERT_TRUE(cache().truncate(b, kPage + 1).ok());
  ASSERT_TRUE(cache().truncate(c, kPage).ok());
  const PagedKvCacheStats stats = cache().stats();
  EXPECT_EQ(stats.pages_total, 10);
  EXPECT_EQ(stats.pages_in_use, 2);
  EXPECT_EQ(stats.pages_shared, 2);
  EXPECT_EQ(stats.requests, 3);
  EXPECT_EQ(stats.tokens, 3 * kPage + 5);
  EXPECT_EQ(stats.tokens_stored, kPage + 4);
  EXPECT_DOUBLE_EQ(stats.internal_fragmentation, 1.0 - (kPage + 4) / (2.0 * kPage));
  ASSERT_TRUE(cache().remove(a).ok());
  EXPECT_EQ(cache().stats().tokens_stored, kPage + 1);
}

TEST_F(CacheTest, EmptyCallsAreFine) {
  make(1);
  EXPECT_TRUE(cache().grow({}, {}).ok());
  EXPECT_TRUE(cache().slots({}, {}, {}).ok());
  EXPECT_TRUE(cache().tables({}, 3, {}, {}).ok());
  EXPECT_EQ(*cache().max_pages({}), 0);
  std::vector<std::int64_t> none;
  EXPECT_TRUE(cache().append({}, {}, test::as_rows(none), test::as_rows(none)).ok());
  const RequestId a = add();
  EXPECT_TRUE(grow(a, 0).ok());
  std::int32_t length = 7;
  EXPECT_TRUE(cache().tables(std::span(&a, 1), 0, {}, std::span(&length, 1)).ok());
  EXPECT_EQ(length, 0);
}

TEST_F(CacheTest, AMovedFromCacheRefuses) {
  make(2);
  const RequestId a = add(1);
  PagedKvCache other = std::move(cache());
  EXPECT_EQ(*other.length(a), 1);
  expect_error(cache().add().status(), StatusCode::invalid_argument, "moved from");
  expect_error(grow(a, 1), StatusCode::invalid_argument, "moved from");
  EXPECT_EQ(cache().free_pages(), 0);
  EXPECT_EQ(cache().stats().pages_total, 0);
  EXPECT_EQ(cache().config().num_pages, 0);
}

// An engine's steady state: requests grow by a token, some end and others take their place, some speculate.
TEST_F(CacheTest, ASteadyStateAllocatesNothing) {
  make(600);
  constexpr int kRequests = 64;
  std::vector<RequestId> ids(kRequests);
  std::vector<std::int32_t> ones(kRequests, 1), table(kRequests * 8), lengths(kRequests);
  std::vector<std::int64_t> slots(kRequests);
  for (RequestId& id : ids) id = *cache().add();
  std::int64_t before = 0;
  for (int step = 0; step < 1000; ++step) {
    if (step == 300) before = test::allocation_count();
    for (int i = step % 7; i < kRequests; i += 7) {
      if (*cache().length(ids[i]) < 100) continue;
      ASSERT_TRUE(cache().remove(ids[i]).ok());
      ids[i] = i % 2 ? *cache().add() : *cache().fork(ids[(i + 1) % kRequests]);
    }
    ASSERT_TRUE(cache().grow(ids, ones).ok());
    ASSERT_TRUE(cache().slots(ids, ones, slots).ok());
    ASSERT_TRUE(cache().tables(ids, 8, table, lengths).ok());
    ASSERT_TRUE(cache().truncate(ids[step % kRequests], *cache().length(ids[step % kRequests]) - 1).ok());
  }
  EXPECT_GT(fake->storage->pages_copied, 0);
  EXPECT_EQ(test::allocation_count(), before);
}

}  // namespace
}  // namespace flash_mla
