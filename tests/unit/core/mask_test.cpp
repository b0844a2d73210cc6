// The mask against its definition, token by token.
#include "core/mask.h"

#include <gtest/gtest.h>

namespace flash_mla {
namespace {

// The definition, token by token: query j of s_q stands at position length - s_q + j.
bool sees(int length, int queries, int query, int token, bool causal) {
  return token < length && (!causal || token <= length - queries + query);
}

TEST(Mask, AgreesWithTheDefinition) {
  for (bool causal : {false, true}) {
    for (int length : {0, 1, 2, 5, 63, 64, 65, 127, 128, 130}) {
      for (int queries : {1, 2, 3, 7, 70}) {
        for (int query = 0; query < queries; ++query) {
          const int visible = visible_tokens(length, queries, query, causal);
          for (int token = 0; token < 192; ++token) {
            ASSERT_EQ(token < visible, sees(length, queries, query, token, causal))
                << "length " << length << " queries " << queries << " query " << query << " token " << token;
          }
        }
      }
    }
  }
}

TEST(Mask, EarlyQueriesOfALongDraftSeeNothing) {
  EXPECT_EQ(visible_tokens(2, 5, 0, true), 0);
  EXPECT_EQ(visible_tokens(2, 5, 2, true), 0);
  EXPECT_EQ(visible_tokens(2, 5, 3, true), 1);
  EXPECT_EQ(visible_tokens(2, 5, 4, true), 2);
  EXPECT_EQ(visible_tokens(2, 5, 0, false), 2);
}

}  // namespace
}  // namespace flash_mla
