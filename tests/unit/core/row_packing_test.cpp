// Rows and (query, head) pairs: a bijection in the documented order.
#include "core/row_packing.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>

namespace flash_mla {
namespace {

TEST(RowPacking, EveryQueryAndHeadHasExactlyOneRow) {
  for (const auto& [heads_q, heads_kv] : {std::pair{1, 1}, {9, 3}, {16, 2}, {63, 1}, {126, 3}, {128, 8}}) {
    const int heads_per_kv = heads_q / heads_kv, queries = 7;
    std::set<std::pair<int, int>> seen;
    for (int kv_head = 0; kv_head < heads_kv; ++kv_head) {
      for (int row = 0; row < queries * heads_per_kv; ++row) {
        const QueryHead at = unpack_row(row, kv_head, heads_per_kv);
        EXPECT_EQ(at.head / heads_per_kv, kv_head);
        EXPECT_LT(at.query, queries);
        EXPECT_EQ(at.query * heads_per_kv + at.head % heads_per_kv, row);
        EXPECT_TRUE(seen.insert({at.query, at.head}).second);
      }
    }
    EXPECT_EQ(static_cast<int>(seen.size()), queries * heads_q);
  }
}

}  // namespace
}  // namespace flash_mla
