// What went wrong in production kernels with memory that a row must not read or must write, on the GPU. The number
// names the lesson; tests/cpu has the same ones for the CPU.
#include <gtest/gtest.h>

#include <climits>
#include <vector>

#include "device/device_problem.h"

namespace flash_mla::test {
namespace {

using reference::Poison;
using reference::ProblemSpec;

constexpr std::int64_t kAllRows = INT64_MAX;

bool fits(const ProblemSpec& spec) {
  std::size_t free = 0, total = 0;
  FLASH_MLA_REQUIRE(cudaMemGetInfo(&free, &total));
  return DeviceProblem::bytes_needed(spec) < static_cast<std::int64_t>(free);
}

// P = 0 times NaN is NaN: unused tokens of a last page, unused pages and gaps must not even be multiplied. Poison of
// any kind leaves the bits of a cache whose rest is zero.
TEST(DeviceLessons, Lessons05PoisonedTailsDoNotLeak) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const std::int32_t page_size : {16, 32, 64, 128}) {
      for (const std::int32_t heads : {8, 16, 128}) {
        ProblemSpec spec;
        spec.dtype = dtype, spec.page_size = page_size, spec.num_heads_q = heads;
        spec.lengths = {1, 63, 0, 65, 100, 127, 200}, spec.seqlen_q = 2;
        spec.poison = Poison::zero;
        DeviceProblem clean(spec);
        ASSERT_TRUE(clean.runs_right(kAllRows));
        const Snapshot expected = clean.snapshot();
        clean.synchronize();
        for (const Poison poison : {Poison::nan, Poison::inf, Poison::mixed}) {
          spec.poison = poison;
          DeviceProblem poisoned(spec);
          ASSERT_TRUE(poisoned.runs_right(kAllRows));
          ASSERT_EQ(poisoned.words_differing(expected), 0) << describe(spec);
        }
      }
    }
  }
}

// Length 0 was an illegal access or NaN: first, middle, last, all, with a table of no columns and a cache of no pages.
TEST(DeviceLessons, Lessons06ZeroLengths) {
  const std::vector<Lengths> cases = {{0, 70}, {70, 0, 5}, {70, 0}, {0, 0, 0, 0}, {0}, {0, 0, 300}};
  for (const Lengths& lengths : cases) {
    for (const bool causal : {true, false}) {
      for (const std::int32_t parts : {0, 1, 5}) {
        ProblemSpec spec;
        spec.lengths = lengths, spec.causal = causal, spec.num_parts = parts, spec.seqlen_q = 2;
        DeviceProblem problem(spec, true);
        EXPECT_TRUE(problem.runs_right(kAllRows));
      }
    }
  }
  ProblemSpec spec;
  spec.lengths = {0, 0}, spec.spare_pages = 0;
  DeviceProblem problem(spec);
  ASSERT_EQ(problem.args().block_table.shape[1], 0);
  ASSERT_EQ(problem.args().kv_cache.shape[0], 0);
  EXPECT_TRUE(problem.runs_right(kAllRows));
}

// Padding of a block table was dereferenced: whatever stands behind a request's last page changes nothing.
TEST(DeviceLessons, Lessons07WildTableEntries) {
  for (const std::int32_t page_size : {16, 64}) {
    ProblemSpec spec;
    spec.lengths = {64, 0, 130, 1}, spec.exact_table = false, spec.page_size = page_size;
    DeviceProblem problem(spec);
    ASSERT_TRUE(problem.runs_right(kAllRows));
    const Snapshot expected = problem.snapshot();
    const TensorView& table = problem.args().block_table;
    Lengths entries(static_cast<std::size_t>(table.shape[0] * table.shape[1]));
    const std::size_t bytes = entries.size() * sizeof entries[0];
    FLASH_MLA_REQUIRE(cudaMemcpy(entries.data(), table.data, bytes, cudaMemcpyDefault));
    const auto pages = static_cast<std::int32_t>(problem.args().kv_cache.shape[0]);
    for (const std::int32_t wild : {-1, INT_MAX, INT_MIN, pages, pages - 1}) {
      for (std::int64_t r = 0; r < table.shape[0]; ++r) {
        const std::int64_t used = (spec.lengths[static_cast<std::size_t>(r)] + page_size - 1) / page_size;
        for (std::int64_t c = used; c < table.shape[1]; ++c) {
          entries[static_cast<std::size_t>(r * table.strides[0] + c)] = wild;
        }
      }
      FLASH_MLA_REQUIRE(cudaMemcpyAsync(table.data, entries.data(), bytes, cudaMemcpyDefault, problem.stream()));
      problem.accept_inputs();
      ASSERT_TRUE(problem.runs_right(kAllRows)) << wild;
      EXPECT_EQ(problem.words_differing(expected), 0) << wild;
    }
  }
}

// The prefetch of page ids read one entry past the table: lengths with odd numbers of pages, in exact tables.
void check_exact_tables(bool guarded) {
  for (const std::int32_t page_size : {16, 32, 64, 128}) {
    for (const std::int32_t pages : {1, 3, 5, 7}) {
      for (const std::int32_t short_by : {0, 1, page_size - 1}) {
        ProblemSpec spec;
        spec.lengths = {page_size * pages - short_by}, spec.page_size = page_size, spec.spare_pages = 0;
        DeviceProblem problem(spec, guarded);
        EXPECT_TRUE(problem.runs_right(guarded ? 20 : 2));  // few rows: tools are slow
      }
    }
  }
}

TEST(DeviceLessons, Lessons08NothingIsMappedBehindTheTable) { check_exact_tables(true); }
TEST(DeviceLessons, Lessons08SanitizeTableOfExactSize) { check_exact_tables(false); }  // memcheck sees it

// page * stride overflowed 32 bits: pages 2^31 elements apart.
TEST(DeviceLessons, Lessons09PageStrideBeyond32Bits) {
  for (const bool joint : {true, false}) {
    ProblemSpec spec;
    spec.lengths = {64, 64, 50}, spec.spare_pages = 1, spec.joint_cache = joint;
    spec.layers = joint ? 58260 : 65540;
    if (!fits(spec)) GTEST_SKIP() << "needs " << DeviceProblem::bytes_needed(spec) << " bytes";
    DeviceProblem problem(spec);
    ASSERT_GT(problem.args().kv_cache.strides[0], std::int64_t{1} << 31);
    EXPECT_TRUE(problem.runs_right(kAllRows));
  }
}

// A contiguous pool of more than 2^32 elements, used here and there.
TEST(DeviceLessons, Lessons09PagesBeyond32Bits) {
  ProblemSpec spec;
  spec.lengths.assign(64, 150), spec.spare_pages = 120000;
  if (!fits(spec)) GTEST_SKIP() << "needs " << DeviceProblem::bytes_needed(spec) << " bytes";
  DeviceProblem problem(spec);
  ASSERT_GT(problem.args().kv_cache.shape[0] * problem.args().kv_cache.strides[0], std::int64_t{1} << 32);
  EXPECT_TRUE(problem.runs_right(kAllRows));
}

// q of more than 2^32 elements, and out with it.
TEST(DeviceLessons, Lessons09LargeQueries) {
  for (const bool ragged : {false, true}) {
    ProblemSpec spec;
    spec.lengths.assign(16400, 0), spec.num_heads_q = 128, spec.seqlen_q = 4, spec.page_size = 16;
    for (std::size_t r = 0; r < spec.lengths.size(); ++r) spec.lengths[r] = static_cast<std::int32_t>(r * 7 % 33);
    spec.ragged = ragged;
    if (ragged) spec.queries.assign(spec.lengths.size(), 4);
    if (!fits(spec)) GTEST_SKIP() << "needs " << DeviceProblem::bytes_needed(spec) << " bytes";
    DeviceProblem problem(spec);
    ASSERT_GT(problem.out_bytes(), std::int64_t{1} << 33);
    EXPECT_TRUE(problem.runs_right(20000));
  }
}

// Rows of padding were left unwritten: every element is written, of empty rows, of rows past the last request, and with
// gaps between rows nothing else is.
TEST(DeviceLessons, Lessons16EveryOutputIsWritten) {
  for (const std::int32_t row_gap : {0, 8}) {
    for (const std::int32_t heads : {3, 16, 128}) {
      ProblemSpec spec;
      spec.lengths = {0, 100, 3, 0}, spec.ragged = true, spec.queries = {2, 1, 5, 0}, spec.padding_queries = 9;
      spec.row_gap = row_gap, spec.num_heads_q = heads;
      DeviceProblem ragged(spec);
      EXPECT_TRUE(ragged.runs_right(kAllRows));
      spec.ragged = false, spec.queries.clear(), spec.padding_queries = 0, spec.seqlen_q = 5;
      DeviceProblem uniform(spec);
      EXPECT_TRUE(uniform.runs_right(kAllRows));
    }
  }
}

// The head count was taken for 128 or a multiple of 16: no head too few, and no read past the last row of q, behind
// which nothing is mapped.
TEST(DeviceLessons, Lessons22HeadCountsWithNothingBehindQ) {
  for (const int h_q : {1, 3, 9, 16, 63, 64, 100, 126, 128}) {
    for (const int h_kv : {1, 2, 3, 8}) {
      if (h_q % h_kv != 0) continue;
      for (const int queries : {1, 3}) {
        ProblemSpec spec;
        spec.lengths = {70, 33}, spec.num_heads_q = h_q, spec.num_heads_kv = h_kv, spec.seqlen_q = queries;
        spec.joint_q = h_q % 2 == 0;
        DeviceProblem problem(spec, true);
        EXPECT_TRUE(problem.runs_right(kAllRows));
      }
    }
  }
}

// The page stride was assumed contiguous: one layer of a cache that interleaves layers, and other orders of dimensions.
TEST(DeviceLessons, Lessons23StridedCaches) {
  for (const std::int32_t layers : {1, 2, 7}) {
    for (const bool heads_first : {false, true}) {
      for (const bool joint : {false, true}) {
        for (const std::int32_t page_size : {32, 128}) {
          ProblemSpec spec;
          spec.lengths = {200, 31}, spec.num_heads_kv = 2, spec.page_size = page_size;
          spec.layers = layers, spec.heads_first = heads_first, spec.joint_cache = joint;
          DeviceProblem problem(spec, true);
          EXPECT_TRUE(problem.runs_right(kAllRows));
        }
      }
    }
  }
}

}  // namespace
}  // namespace flash_mla::test
