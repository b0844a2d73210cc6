// The two halves of the bookkeeping by themselves: pages with their references, and requests with their ids.
#include "cache/page_pool.h"

#include <gtest/gtest.h>

#include "cache/request_table.h"

namespace flash_mla {
namespace {

TEST(PagePool, HandsOutPagesInOrderAndLastFreedFirst) {
  PagePool pool(4);
  EXPECT_EQ(pool.peek(1), 1);
  EXPECT_EQ(pool.take(), 0);
  EXPECT_EQ(pool.take(), 1);
  EXPECT_EQ(pool.take(), 2);
  pool.release(0);
  pool.release(2);
  EXPECT_EQ(pool.num_free(), 3);
  EXPECT_EQ(pool.peek(0), 2);
  EXPECT_EQ(pool.take(), 2);
  EXPECT_EQ(pool.take(), 0);
  EXPECT_EQ(pool.take(), 3);
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_EQ(pool.num_in_use(), 4);
}

TEST(PagePool, CountsReferences) {
  PagePool pool(2);
  const std::int32_t page = pool.take();
  EXPECT_EQ(pool.references(page), 1);
  EXPECT_EQ(pool.num_shared(), 0);
  pool.retain(page);
  pool.retain(page);
  EXPECT_EQ(pool.references(page), 3);
  EXPECT_EQ(pool.num_shared(), 1);
  pool.release(page);
  EXPECT_EQ(pool.num_shared(), 1);
  pool.release(page);
  EXPECT_EQ(pool.num_shared(), 0);
  EXPECT_EQ(pool.num_in_use(), 1);
  pool.release(page);
  EXPECT_EQ(pool.references(page), 0);
  EXPECT_EQ(pool.num_in_use(), 0);
}

TEST(RequestTable, IdsNeverReturn) {
  RequestTable table;
  std::vector<RequestId> past;
  for (int i = 0; i < 100; ++i) {
    table.reserve_one();
    const RequestId id = table.insert();
    ASSERT_NE(id, RequestId{0});
    for (RequestId old : past) {
      ASSERT_NE(old, id);
      ASSERT_EQ(table.find(old), nullptr);
    }
    ASSERT_NE(table.find(id), nullptr);
    table.erase(*table.find(id));
    past.push_back(id);
  }
  EXPECT_EQ(table.slots().size(), 1u);  // one slot served all
  EXPECT_EQ(table.size(), 0);
}

TEST(RequestTable, SlotIsRetiredBeforeItsGenerationsRunOut) {
  RequestTable table;
  table.reserve_one();
  const RequestId first = table.insert();
  Request* request = table.find(first);
  request->generation = INT32_MAX;
  table.erase(*request);
  table.reserve_one();
  const RequestId second = table.insert();
  EXPECT_EQ(table.slots().size(), 2u);
  EXPECT_EQ(static_cast<std::int64_t>(second) >> 32, 1);
}

TEST(RequestTable, ForeignIdsAreUnknown) {
  RequestTable table;
  table.reserve_one();
  const RequestId id = table.insert();
  for (std::int64_t bits : {std::int64_t{0}, std::int64_t{-1}, INT64_MIN, INT64_MAX, static_cast<std::int64_t>(id) + 1,
                            static_cast<std::int64_t>(id) ^ INT64_MIN}) {
    EXPECT_EQ(table.find(RequestId{bits}), nullptr) << bits;
    EXPECT_NE(std::string(table.unknown("request", RequestId{bits}).message()).find(std::to_string(bits)),
              std::string::npos);
  }
}

}  // namespace
}  // namespace flash_mla
