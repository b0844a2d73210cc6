// What went wrong in production kernels with memory that a row must not read or must write: padding, tails, strides,
// NaN. The number names the lesson.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "cpu/step.h"
#include "reference/float_format.h"

namespace flash_mla::test {
namespace {

using reference::Poison;
using reference::Problem;
using reference::ProblemSpec;
using reference::Reference;
using reference::RowId;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

void store(const TensorView& view, std::int64_t offset, double value) {
  reference::store_element(view.dtype, static_cast<char*>(view.data) + offset * size_in_bytes(view.dtype), value);
}

// P = 0 times NaN is NaN: unused tokens of a last page, unused pages and gaps must not even be multiplied. Poison of
// any kind leaves the bits of a cache whose rest is zero.
TEST(Lessons, Lessons05PoisonedTailsDoNotLeak) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const std::int32_t page_size : {16, 32, 64, 128}) {
      ProblemSpec spec;
      spec.dtype = dtype, spec.page_size = page_size, spec.lengths = {1, 63, 0, 65, 100, 127, 200}, spec.seqlen_q = 2;
      spec.poison = Poison::zero;
      Problem clean(spec);
      ASSERT_TRUE(runs_right(clean));
      for (const Poison poison : {Poison::nan, Poison::inf, Poison::mixed}) {
        spec.poison = poison;
        Problem poisoned(spec);
        ASSERT_TRUE(runs_right(poisoned));
        ASSERT_TRUE(bits_of(poisoned.decode_args()) == bits_of(clean.decode_args())) << describe(spec);
      }
    }
  }
}

// Length 0 was an illegal access or NaN: first, middle, last, all, with a table of no columns.
TEST(Lessons, Lessons06ZeroLengths) {
  const std::vector<std::vector<std::int32_t>> cases = {{0, 70}, {70, 0, 5}, {70, 0}, {0, 0, 0, 0}, {0}, {0, 0, 300}};
  for (const auto& lengths : cases) {
    for (const bool causal : {true, false}) {
      for (const std::int32_t parts : {0, 1, 5}) {
        ProblemSpec spec;
        spec.lengths = lengths, spec.causal = causal, spec.num_parts = parts, spec.seqlen_q = 2;
        Problem problem(spec);
        EXPECT_TRUE(runs_right(problem));
      }
    }
  }
  ProblemSpec spec;
  spec.lengths = {0, 0}, spec.spare_pages = 0;
  Problem problem(spec);
  ASSERT_EQ(problem.decode_args().block_table.shape[1], 0);
  EXPECT_TRUE(runs_right(problem));
}

// Padding of a block table was dereferenced: whatever stands behind a request's last page changes nothing.
TEST(Lessons, Lessons07WildTableEntries) {
  ProblemSpec spec;
  spec.lengths = {64, 0, 130, 1}, spec.exact_table = false;
  Problem problem(spec);
  ASSERT_TRUE(runs_right(problem));
  const Bits expected = bits_of(problem.decode_args());
  const TensorView& table = problem.decode_args().block_table;
  for (const std::int32_t wild : {-1, INT_MAX, INT_MIN, problem.num_pages()}) {
    for (std::int64_t r = 0; r < table.shape[0]; ++r) {
      for (std::int64_t c = (spec.lengths[static_cast<std::size_t>(r)] + 63) / 64; c < table.shape[1]; ++c) {
        static_cast<std::int32_t*>(table.data)[r * table.strides[0] + c] = wild;
      }
    }
    problem.accept_inputs();
    ASSERT_TRUE(runs_right(problem)) << wild;
    EXPECT_TRUE(bits_of(problem.decode_args()) == expected) << wild;
  }
}

// On the CPU an entry in use that names no page is an error, and nothing is written.
TEST(Lessons, Lessons07WildEntryInUseIsAnError) {
  ProblemSpec spec;
  spec.lengths = {64, 130};
  Problem problem(spec);
  auto* table = static_cast<std::int32_t*>(problem.decode_args().block_table.data);
  for (const std::int32_t wild : {-1, INT_MAX, INT_MIN, problem.num_pages()}) {
    table[problem.decode_args().block_table.strides[0] + 2] = wild;
    const Status status = run(problem);
    EXPECT_EQ(status.code(), StatusCode::invalid_argument);
    EXPECT_NE(std::string(status.message()).find("block_table[1, 2] is " + std::to_string(wild)), std::string::npos)
        << status.message();
    EXPECT_EQ(reference::count_nan(problem.decode_args().out), 2 * 16 * kLatentDim);
  }
}

// Rows of padding were left unwritten: every element is written, of empty rows, of rows past the last request, and with
// gaps between rows nothing else is.
TEST(Lessons, Lessons16EveryOutputIsWritten) {
  for (const std::int32_t row_gap : {0, 7}) {
    ProblemSpec spec;
    spec.lengths = {0, 100, 3, 0}, spec.ragged = true, spec.queries = {2, 1, 5, 0}, spec.padding_queries = 9;
    spec.row_gap = row_gap;
    Problem ragged(spec);
    EXPECT_TRUE(runs_right(ragged));
    spec.ragged = false, spec.queries.clear(), spec.padding_queries = 0, spec.seqlen_q = 5;
    Problem uniform(spec);
    EXPECT_TRUE(runs_right(uniform));
  }
}

// page * stride overflowed 32 bits: pages that lie 2^31 elements apart, in address space of which little is touched.
TEST(Lessons, Lessons09OffsetsBeyond32Bits) {
  ProblemSpec spec;
  spec.lengths = {64, 64, 50};
  Problem problem(spec);
  DecodeArgs args = problem.decode_args();
  const std::int64_t stride = (std::int64_t{1} << 31) + 64;
  const auto page_bytes = static_cast<std::size_t>(args.kv_cache.strides[0] * 2);
  const std::size_t mapped_bytes = static_cast<std::size_t>((args.kv_cache.shape[0] - 1) * stride * 2) + page_bytes;
  void* mapping =
      mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) GTEST_SKIP() << "no address space of " << mapped_bytes << " bytes here";
  for (std::int64_t page = 0; page < args.kv_cache.shape[0]; ++page) {
    std::memcpy(static_cast<std::byte*>(mapping) + page * stride * 2,
                static_cast<std::byte*>(args.kv_cache.data) + page * args.kv_cache.strides[0] * 2, page_bytes);
  }
  args.kv_cache.data = mapping, args.kv_cache.strides[0] = stride;
  Step step(problem.plan_config());
  EXPECT_TRUE(step.schedule(problem.schedule_args()).ok());
  EXPECT_TRUE(step.decode(args).ok());
  EXPECT_TRUE(is_right(problem));
  munmap(mapping, mapped_bytes);
}

// The head count was taken for 128 or a multiple of 16: no head too few, and no read past the last row of q, behind
// which a page without access lies.
TEST(Lessons, Lessons22HeadCountsWithAGuardPageBehindQ) {
  const auto page_bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  for (const int h_q : {1, 3, 9, 16, 63, 64, 100, 126, 128}) {
    for (const int h_kv : {1, 2, 3, 8}) {
      if (h_q % h_kv != 0) continue;
      ProblemSpec spec;
      spec.lengths = {70, 33}, spec.num_heads_q = h_q, spec.num_heads_kv = h_kv;
      Problem problem(spec);
      DecodeArgs args = problem.decode_args();
      const std::size_t q_bytes = std::size_t{2} * static_cast<std::size_t>(h_q) * kHeadDim * 2;
      const std::size_t mapped_bytes = (q_bytes + page_bytes - 1) / page_bytes * page_bytes;
      void* mapping =
          mmap(nullptr, mapped_bytes + page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      ASSERT_NE(mapping, MAP_FAILED);
      auto* end = static_cast<std::byte*>(mapping) + mapped_bytes;
      ASSERT_EQ(mprotect(end, page_bytes, PROT_NONE), 0);
      std::memcpy(end - q_bytes, args.q.data, q_bytes);
      args.q.data = end - q_bytes;
      Step step(problem.plan_config());
      EXPECT_TRUE(step.schedule(problem.schedule_args()).ok());
      EXPECT_TRUE(step.decode(args).ok());
      EXPECT_TRUE(is_right(problem)) << h_q << "/" << h_kv;
      munmap(mapping, mapped_bytes + page_bytes);
    }
  }
}

// The page stride was assumed contiguous: one layer of a cache that interleaves layers, and other orders of dimensions.
TEST(Lessons, Lessons23StridedCaches) {
  for (const std::int32_t layers : {1, 2, 7}) {
    for (const bool heads_first : {false, true}) {
      for (const bool joint : {false, true}) {
        ProblemSpec spec;
        spec.lengths = {200, 31}, spec.num_heads_kv = 2, spec.page_size = 32;
        spec.layers = layers, spec.heads_first = heads_first, spec.joint_cache = joint;
        Problem problem(spec);
        EXPECT_TRUE(runs_right(problem));
      }
    }
  }
}

// A NaN must be neither lost nor spread. In q: that row is NaN, all others keep their bits.
TEST(Lessons, Lessons30NanInQStaysInItsRow) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const int column : {0, 511, 575}) {
      ProblemSpec spec;
      spec.dtype = dtype, spec.lengths = {130, 64, 0}, spec.seqlen_q = 2, spec.num_heads_q = 6, spec.num_heads_kv = 2;
      spec.num_parts = 3;
      Problem problem(spec);
      ASSERT_TRUE(runs_right(problem));
      const DecodeArgs& args = problem.decode_args();
      const std::vector<RowId> rows = Reference(args, true).all_rows();
      std::vector<std::vector<std::byte>> before;
      for (const RowId row : rows) before.push_back(bits_of_row(args, row));

      store(args.q, 1 * args.q.strides[1] + 4 * args.q.strides[2] + column, kNan);  // request 0, query 1, head 4
      problem.accept_inputs();
      problem.clear_results();
      ASSERT_TRUE(run(problem).ok());
      EXPECT_EQ(problem.damage(), "");
      Reference reference(args, true);
      for (std::size_t i = 0; i < rows.size(); ++i) {
        if (rows[i] == RowId{0, 1, 4}) {
          const reference::Row got = reference.result(rows[i]);
          EXPECT_TRUE(std::isnan(got.lse));
          EXPECT_TRUE(std::all_of(got.out.begin(), got.out.end(), [](double x) { return std::isnan(x); }));
        } else {
          EXPECT_TRUE(bits_of_row(args, rows[i]) == before[i])
              << "request " << rows[i].request << " query " << rows[i].query << " head " << rows[i].head;
        }
      }
    }
  }
}

// In a cached token: every row that sees it is NaN, other requests and kv heads keep their bits. Rows of the same
// request and kv head that do not see it may be NaN.
TEST(Lessons, Lessons30NanInATokenStaysInItsRequest) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const std::int32_t t : {0, 70, 129}) {
      ProblemSpec spec;
      spec.dtype = dtype, spec.lengths = {64, 130, 0}, spec.seqlen_q = 3, spec.num_heads_q = 6, spec.num_heads_kv = 2;
      spec.num_parts = 3;
      Problem problem(spec);
      ASSERT_TRUE(runs_right(problem));
      const DecodeArgs& args = problem.decode_args();
      const std::vector<RowId> rows = Reference(args, true).all_rows();
      std::vector<std::vector<std::byte>> before;
      for (const RowId row : rows) before.push_back(bits_of_row(args, row));

      const auto* table = static_cast<const std::int32_t*>(args.block_table.data);
      const std::int64_t page = table[args.block_table.strides[0] + t / 64];
      store(args.kv_cache,
            page * args.kv_cache.strides[0] + t % 64 * args.kv_cache.strides[1] + args.kv_cache.strides[2] + 17, kNan);
      problem.accept_inputs();  // request 1, kv head 1, that is heads 3 to 5
      problem.clear_results();
      ASSERT_TRUE(run(problem).ok());
      Reference reference(args, true);
      for (std::size_t i = 0; i < rows.size(); ++i) {
        const bool concerned = rows[i].request == 1 && rows[i].head >= 3;
        if (!concerned) {
          EXPECT_TRUE(bits_of_row(args, rows[i]) == before[i]) << rows[i].request << " " << rows[i].head;
        } else if (reference.visible(1, rows[i].query) > t) {
          const reference::Row got = reference.result(rows[i]);
          EXPECT_TRUE(std::isnan(got.lse)) << t << " query " << rows[i].query;
          EXPECT_TRUE(std::all_of(got.out.begin(), got.out.end(), [](double x) { return std::isnan(x); }));
        }
      }
    }
  }
}

}  // namespace
}  // namespace flash_mla::test
