// The hashes by which decode recognises a schedule (schedule/layout.h).
#include <gtest/gtest.h>

#include "schedule/layout.h"
#include "unit/schedule/schedule_fixture.h"

namespace flash_mla::testing {
namespace {

TEST(ScheduleHash, LengthsHashSeesEveryLengthAndItsPlace) {
  Step step{.lengths = {10, 20, 30}, .queries = {1, 2, 3}};
  const std::int32_t hash = lengths_hash(step.work());
  EXPECT_EQ(make(step.work(), step.cost, 2).header().lengths_hash, hash);
  for (std::size_t i = 0; i < 3; ++i) {
    Step longer = step, wider = step;
    longer.lengths[i] += 1, wider.queries[i] += 1;
    EXPECT_NE(lengths_hash(longer.work()), hash);
    EXPECT_NE(lengths_hash(wider.work()), hash);
  }
  Step swapped = step, shorter = step;
  std::swap(swapped.lengths[0], swapped.lengths[2]);
  EXPECT_NE(lengths_hash(swapped.work()), hash);
  shorter.lengths.pop_back(), shorter.queries.pop_back();
  EXPECT_NE(lengths_hash(shorter.work()), hash);
}

TEST(ScheduleHash, ShapeHashSeesEveryFieldButTheBatch) {
  Step step{.lengths = {10, 20}, .queries = {}};
  step.seqlen_q = 5;  // 80 rows: two bundles
  const Work work = step.work();
  const auto differs = [&](auto change) {
    Work other = work;
    change(other);
    return shape_hash(other) != shape_hash(work);
  };
  EXPECT_TRUE(differs([](Work& w) { w.seqlen_q = 2; }));
  EXPECT_TRUE(differs([](Work& w) { w.heads_per_kv = 128; }));
  EXPECT_TRUE(differs([](Work& w) { w.num_heads_kv = 2; }));
  EXPECT_TRUE(differs([](Work& w) { w.rows_per_unit = 128; }));
  EXPECT_TRUE(differs([](Work& w) { w.causal = false; }));
  EXPECT_TRUE(differs([&](Work& w) { w.cu_seqlens_q = work.cache_seqlens; }));
  EXPECT_TRUE(differs([](Work& w) { w.seqlen_q = 10, w.heads_per_kv = 8; }));
  EXPECT_FALSE(differs([](Work& w) { w.batch = 1; }));
}

// Callers may know rows, but not how many query tokens and heads they are: see docs/conventions.md.
TEST(ScheduleHash, RowsAloneDecideWhereNoMaskDividesThem) {
  const auto same_schedule = [](Step tokens, Step heads) {
    const Work a = tokens.work(), b = heads.work();
    return shape_hash(a) == shape_hash(b) && make(a, tokens.cost, 7).memory == make(b, heads.cost, 7).memory;
  };
  Step tokens{.lengths = {10, 2000, 0, 300}, .queries = {}}, heads = tokens;
  for (std::int32_t s_q : {2, 3, 4, 9}) {
    tokens.seqlen_q = s_q, heads.heads_per_kv = 16 * s_q;
    tokens.causal = heads.causal = s_q <= 4;  // up to 64 rows, one bundle, which the last token sees whole
    EXPECT_TRUE(same_schedule(tokens, heads)) << s_q;
  }
  tokens.causal = true;
  EXPECT_FALSE(same_schedule(tokens, heads));
}

}  // namespace
}  // namespace flash_mla::testing
