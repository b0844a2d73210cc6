// The builder sets the traps it promises, and sees when one was sprung.
#include "reference/problem.h"

#include <gtest/gtest.h>

#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <set>
#include <vector>

#include "reference/compare.h"
#include "reference/float_format.h"

namespace flash_mla::reference {
namespace {

ProblemSpec trapped_spec() {
  ProblemSpec spec;
  spec.lengths = {65, 0, 130, 1};
  spec.seqlen_q = 2, spec.num_heads_q = 4, spec.num_heads_kv = 2, spec.exact_table = false;
  spec.layers = 2, spec.row_gap = 8, spec.offset_elements = 8;
  return spec;
}

TEST(Problem, TableNamesDistinctPagesAndWildEntries) {
  const Problem problem(trapped_spec());
  const TensorView& table = problem.decode_args().block_table;
  ASSERT_EQ(table.shape[0], 4);
  ASSERT_EQ(table.shape[1], 3 + 3);
  std::set<std::int32_t> pages;
  for (std::int64_t r = 0; r < 4; ++r) {
    for (std::int64_t c = 0; c < table.shape[1]; ++c) {
      const std::int32_t entry = static_cast<const std::int32_t*>(table.data)[r * table.strides[0] + c];
      if (c * 64 < problem.spec().lengths[static_cast<std::size_t>(r)]) {
        EXPECT_TRUE(entry >= 0 && entry < problem.num_pages());
        EXPECT_TRUE(pages.insert(entry).second) << "page " << entry << " twice";
      } else {
        EXPECT_TRUE(entry == -1 || entry == INT_MAX || entry > problem.num_pages()) << entry;
      }
    }
  }
  EXPECT_EQ(pages.size(), 2u + 3u + 1u);
  EXPECT_EQ(problem.num_pages(), 6 + 2);
}

// Exactly the live tokens are finite.
TEST(Problem, EverythingElseIsPoison) {
  for (const Poison poison : {Poison::nan, Poison::inf, Poison::mixed}) {
    ProblemSpec spec = trapped_spec();
    spec.poison = poison;
    const Problem problem(spec);
    const Buffer* buffer = nullptr;
    for (const Buffer& candidate : problem.buffers()) {
      if (candidate.name() == "kv_cache") buffer = &candidate;
    }
    ASSERT_NE(buffer, nullptr);
    std::int64_t finite = 0, nan = 0, inf = 0;
    for (std::int64_t at = 0; at < buffer->bytes(); at += 2) {
      const double value = load_element(DType::bf16, buffer->data() + at);
      ++(std::isnan(value) ? nan : std::isinf(value) ? inf : finite);
    }
    EXPECT_EQ(finite, (65 + 130 + 1) * 2 * kHeadDim);
    EXPECT_EQ(nan > 0, poison != Poison::inf);
    EXPECT_EQ(inf > 0, poison != Poison::nan);
    Reference reference(problem.decode_args(), true);
    for (const RowId id : reference.all_rows()) {
      for (double value : reference.row(id).exact.out) ASSERT_TRUE(std::isfinite(value));
    }
  }
}

TEST(Problem, ElementsLookNormal) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    ProblemSpec spec;
    spec.dtype = dtype, spec.lengths = {64}, spec.num_heads_q = 128, spec.q_scale = 3;
    const Problem problem(spec);
    double sum = 0, squares = 0;
    const std::int64_t count = 128 * kHeadDim;
    for (std::int64_t i = 0; i < count; ++i) {
      const double value =
          load_element(dtype, static_cast<const char*>(problem.decode_args().q.data) + i * size_in_bytes(dtype));
      sum += value, squares += value * value;
    }
    EXPECT_NEAR(sum / static_cast<double>(count), 0, 0.05);
    EXPECT_NEAR(std::sqrt(squares / static_cast<double>(count)), 3, 0.1);
  }
}

TEST(Problem, SeedsDecide) {
  ProblemSpec spec = trapped_spec();
  const Problem a(spec), b(spec);
  spec.seed = 2;
  const Problem c(spec);
  for (std::size_t i = 0; i < a.buffers().size(); ++i) {
    ASSERT_EQ(a.buffers()[i].bytes(), b.buffers()[i].bytes());
    EXPECT_EQ(
        std::memcmp(a.buffers()[i].data(), b.buffers()[i].data(), static_cast<std::size_t>(a.buffers()[i].bytes())), 0)
        << a.buffers()[i].name();
  }
  EXPECT_NE(std::memcmp(a.decode_args().q.data, c.decode_args().q.data, 1024), 0);
}

TEST(Problem, ResultsBeginAsNan) {
  const Problem problem(trapped_spec());
  EXPECT_EQ(count_nan(problem.decode_args().out), 4 * 2 * 4 * kLatentDim);
  EXPECT_EQ(count_nan(problem.decode_args().lse), 4 * 4 * 2);
}

TEST(Problem, SeesDamage) {
  Problem problem(trapped_spec());
  const DecodeArgs& args = problem.decode_args();
  EXPECT_EQ(problem.damage(), "");
  store_element(DType::bf16, args.out.data, 1);  // a result is no damage
  store_element(DType::f32, args.lse.data, 1);
  EXPECT_EQ(problem.damage(), "");
  auto* out = static_cast<char*>(args.out.data);
  store_element(DType::bf16, out + 2 * kLatentDim, 1);  // the gap after the first row
  EXPECT_NE(problem.damage(), "");
  problem.clear_results();
  EXPECT_EQ(problem.damage(), "");
  store_element(DType::bf16, out - 2, 1);  // before the first row
  EXPECT_NE(problem.damage(), "");
  problem.clear_results();
  store_element(DType::bf16, args.q.data, 100);
  EXPECT_EQ(problem.damage(), "q was changed");
  problem.accept_inputs();
  EXPECT_EQ(problem.damage(), "");
}

TEST(Problem, RelocatesIntoOtherMemory) {
  const Problem problem(trapped_spec());
  std::vector<std::vector<std::byte>> memories;
  std::vector<void*> bases;
  for (const Buffer& buffer : problem.buffers()) {
    memories.emplace_back(buffer.data(), buffer.data() + buffer.bytes());
    bases.push_back(memories.back().data());
  }
  const DecodeArgs moved = problem.relocate(problem.decode_args(), bases, {DeviceType::cpu, 0});
  EXPECT_NE(moved.q.data, problem.decode_args().q.data);
  EXPECT_FALSE(moved.q_rope.given());
  Reference here(problem.decode_args(), true), there(moved, true);
  for (const RowId id : here.all_rows()) EXPECT_EQ(here.row(id).exact.out, there.row(id).exact.out);
}

TEST(Problem, NothingAtAll) {
  ProblemSpec spec;
  spec.spare_pages = 0, spec.layers = 2, spec.offset_elements = 1;
  const Problem problem(spec);
  EXPECT_EQ(problem.batch(), 0);
  EXPECT_EQ(problem.damage(), "");
  EXPECT_TRUE(Reference(problem.decode_args(), true).all_rows().empty());
}

}  // namespace
}  // namespace flash_mla::reference
