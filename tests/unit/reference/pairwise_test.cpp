// The covering sets cover, and are small.
#include "reference/pairwise.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <set>
#include <tuple>
#include <vector>

namespace flash_mla::reference {
namespace {

TEST(Pairwise, EveryTwoChoicesMeet) {
  const std::vector<int> sizes = {7, 1, 2, 9, 3, 4};
  const auto cases = pairwise_cases(sizes, 1);
  std::set<std::tuple<std::size_t, int, std::size_t, int>> met;
  for (const auto& chosen : cases) {
    ASSERT_EQ(chosen.size(), sizes.size());
    for (std::size_t a = 0; a < sizes.size(); ++a) {
      ASSERT_GE(chosen[a], 0);
      ASSERT_LT(chosen[a], sizes[a]);
      for (std::size_t b = a + 1; b < sizes.size(); ++b) met.emplace(a, chosen[a], b, chosen[b]);
    }
  }
  std::size_t pairs = 0;
  for (std::size_t a = 0; a < sizes.size(); ++a) {
    for (std::size_t b = a + 1; b < sizes.size(); ++b) pairs += static_cast<std::size_t>(sizes[a] * sizes[b]);
  }
  EXPECT_EQ(met.size(), pairs);
  EXPECT_GE(cases.size(), 7u * 9u);
  EXPECT_LE(cases.size(), 80u);  // all combinations: 1512
  EXPECT_EQ(cases, pairwise_cases(sizes, 1));
}

}  // namespace
}  // namespace flash_mla::reference
