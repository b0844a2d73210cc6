// RequestUnits against the units one by one, for every length around block boundaries.
#include "schedule/request_units.h"

#include <gtest/gtest.h>

#include <utility>

#include "schedule/cuts.h"

namespace flash_mla {
namespace {

// Every offset lies in the unit that counting from the first one finds.
void check(const Work& work) {
  const CostWeight weight{{.fixed = 3, .per_block = 2, .merge = 0}};
  const RequestUnits units(work, 0);
  std::int64_t total = 0;
  ASSERT_EQ(units.count(), work.subs(0));
  for (std::int32_t sub = 0; sub < work.subs(0); ++sub) {
    const std::int32_t blocks = work.blocks(0, sub % work.bundles(0));
    for (std::int64_t offset = 0; offset < weight(blocks); ++offset) {
      const UnitAt at = units.find(total + offset, weight);
      ASSERT_EQ(at.sub, sub);
      ASSERT_EQ(at.blocks, blocks);
      ASSERT_EQ(at.offset, offset);
    }
    total += weight(blocks);
    ASSERT_LE(blocks, units.max_blocks());
  }
  ASSERT_EQ(units.total(weight), total);
}

TEST(RequestUnits, AgreeWithTheUnitsOneByOne) {
  for (const auto& [heads, rows] :
       {std::pair{1, 1}, {1, 64}, {3, 64}, {64, 64}, {16, 64}, {128, 64}, {100, 64}, {7, 3}}) {
    for (std::int32_t queries : {0, 1, 2, 3, 7, 70}) {
      for (std::int32_t length = 0; length < 200; ++length) {
        for (bool causal : {false, true}) {
          check({.batch = 1,
                 .seqlen_q = queries,
                 .cache_seqlens = &length,
                 .heads_per_kv = heads,
                 .num_heads_kv = 2,
                 .rows_per_unit = rows,
                 .causal = causal});
          ASSERT_FALSE(HasFailure()) << "heads " << heads << " rows " << rows << " queries " << queries << " length "
                                     << length << (causal ? " causal" : " full");
        }
      }
    }
  }
}

}  // namespace
}  // namespace flash_mla
