// The reference on the GPU against the one on the CPU, and whether the judges see what is wrong.
#include "device/device_reference.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "device/device_problem.h"
#include "device/device_step.h"
#include "reference/float_format.h"

namespace flash_mla::test {
namespace {

using reference::Poison;
using reference::Problem;
using reference::ProblemSpec;
using reference::ReferenceRow;
using reference::Row;
using reference::RowId;

std::vector<ProblemSpec> specs() {
  std::vector<ProblemSpec> all(6);
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].seed = i + 1;
    all[i].dtype = i % 2 == 0 ? DType::bf16 : DType::f16;
    all[i].causal = i != 2;
    all[i].lengths = {1, 0, 65, 300, 3};
    all[i].seqlen_q = static_cast<std::int32_t>(i % 4 + 1);
    all[i].num_heads_q = 6, all[i].num_heads_kv = i % 2 == 0 ? 1 : 3;
    all[i].page_size = i < 3 ? 64 : 16;
    all[i].joint_q = i < 2, all[i].joint_cache = i < 4;
  }
  all[1].layers = 3, all[2].heads_first = true, all[3].row_gap = 8, all[3].offset_elements = 16;
  all[4].q_scale = 30, all[4].want_lse = false;
  all[5].ragged = true, all[5].queries = {2, 1, 0, 4, 1}, all[5].padding_queries = 3;
  return all;
}

double difference(const Row& a, const Row& b) {
  double sum = 0;
  for (std::size_t c = 0; c < a.out.size(); ++c) sum += (a.out[c] - b.out[c]) * (a.out[c] - b.out[c]);
  return std::sqrt(sum);
}
double norm(const Row& row) { return difference(row, {}); }

TEST(DeviceReference, AgreesWithTheCpu) {
  for (const ProblemSpec& spec : specs()) {
    SCOPED_TRACE(describe(spec));
    Problem problem(spec);
    DeviceStep step(problem);
    reference::Reference on_cpu(problem.decode_args(), spec.causal);
    const std::vector<RowId> rows = on_cpu.all_rows();
    const std::vector<ReferenceRow> got = reference::rows_on_device(step.args(), spec.causal, rows);
    ASSERT_EQ(got.size(), rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const ReferenceRow want = on_cpu.row(rows[i]);
      ASSERT_LE(difference(got[i].exact, want.exact), 1e-10 * norm(want.exact)) << i;
      // A weight on the edge between two values of the type may round to either.
      ASSERT_LE(difference(got[i].model, want.model), 0.2 * difference(want.model, want.exact)) << i;
      if (std::isinf(want.exact.lse)) {
        ASSERT_EQ(got[i].exact.lse, want.exact.lse) << i;
      } else {
        ASSERT_NEAR(got[i].exact.lse, want.exact.lse, 1e-10 * (1 + std::fabs(want.exact.lse))) << i;
      }
    }
  }
}

TEST(DeviceReference, NanAndInfinityTakePart) {
  ProblemSpec spec;
  spec.lengths = {100, 70}, spec.num_heads_q = 2;
  Problem problem(spec);
  const DecodeArgs& args = problem.decode_args();
  const auto* table = static_cast<const std::int32_t*>(args.block_table.data);
  const auto token = [&](int r) { return static_cast<char*>(args.kv_cache.data) + table[r * 2] * 64 * 576 * 2; };
  reference::store_element(spec.dtype, token(0), std::numeric_limits<double>::quiet_NaN());
  reference::store_element(spec.dtype, token(1) + 7 * 2, std::numeric_limits<double>::infinity());
  DeviceStep step(problem);
  reference::Reference on_cpu(args, true);
  const std::vector<RowId> rows = on_cpu.all_rows();
  const auto got = reference::rows_on_device(step.args(), true, rows);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const ReferenceRow want = on_cpu.row(rows[i]);
    EXPECT_EQ(std::isnan(got[i].exact.lse), std::isnan(want.exact.lse)) << i;
    for (std::size_t c = 0; c < want.exact.out.size(); ++c) {
      ASSERT_EQ(std::isnan(got[i].exact.out[c]), std::isnan(want.exact.out[c])) << i << ' ' << c;
    }
  }
}

TEST(DeviceReference, ReadsResultsAsTheCpuDoes) {
  for (const ProblemSpec& spec : specs()) {
    SCOPED_TRACE(describe(spec));
    Problem problem(spec);
    DeviceStep step(problem);
    ASSERT_TRUE(step.schedule().ok());
    ASSERT_TRUE(step.decode().ok());
    step.fetch_results();
    const reference::Reference on_cpu(problem.decode_args(), spec.causal);
    const std::vector<RowId> rows = on_cpu.all_rows();
    const std::vector<Row> got = reference::results_on_device(step.args(), rows);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const Row want = on_cpu.result(rows[i]);
      ASSERT_EQ(got[i].out, want.out) << i;
      if (spec.want_lse) {
        ASSERT_EQ(got[i].lse, want.lse) << i;
      }
    }
  }
}

// What DeviceProblem makes is a problem like any other: the CPU's reference agrees on a copy of its memory.
TEST(DeviceProblem, ItsMemoryIsAsSpecified) {
  for (const ProblemSpec& spec : specs()) {
    SCOPED_TRACE(describe(spec));
    DeviceProblem on_gpu(spec);
    on_gpu.run();
    on_gpu.synchronize();
    Problem copy(spec, reference::Contents::layout);
    const DecodeArgs &from = on_gpu.args(), &to = copy.decode_args();
    for (const auto& [source, view] : {std::pair{&from.q, &to.q},
                                       {&from.q_rope, &to.q_rope},
                                       {&from.kv_cache, &to.kv_cache},
                                       {&from.k_rope_cache, &to.k_rope_cache},
                                       {&from.out, &to.out},
                                       {&from.lse, &to.lse}}) {
      if (!view->given()) continue;
      std::int64_t elements = 1;
      for (int axis = 0; axis < view->rank; ++axis) elements += (view->shape[axis] - 1) * view->strides[axis];
      FLASH_MLA_REQUIRE(cudaMemcpy(view->data, source->data,
                                   static_cast<std::size_t>(elements * size_in_bytes(view->dtype)), cudaMemcpyDefault));
    }
    const reference::Comparison comparison = reference::compare(to, spec.causal);
    EXPECT_TRUE(comparison.ok) << comparison.message;
    std::vector<RowId> rows = on_gpu.rows();
    EXPECT_EQ(static_cast<std::int64_t>(rows.size()), comparison.rows);
    EXPECT_TRUE(on_gpu.is_right(INT64_MAX));
  }
}

// Each way to be wrong is found.
TEST(DeviceProblem, WrongResultsAreFound) {
  ProblemSpec spec;
  spec.lengths = {100, 70, 0}, spec.num_heads_q = 4, spec.row_gap = 8;
  DeviceProblem problem(spec);
  const auto poke = [&](void* base, std::int64_t offset_bytes, std::uint16_t bits) {
    FLASH_MLA_REQUIRE(
        cudaMemcpyAsync(static_cast<char*>(base) + offset_bytes, &bits, 2, cudaMemcpyDefault, problem.stream()));
    problem.synchronize();
  };
  ASSERT_TRUE(problem.runs_right(INT64_MAX));
  const Snapshot right = problem.snapshot();
  EXPECT_EQ(problem.words_differing(right), 0);
  const std::int64_t row = problem.args().out.strides[2] * 2;
  poke(problem.args().out.data, 1 * row + 20, 0x4120);  // 10 in one element
  EXPECT_FALSE(problem.is_right(INT64_MAX));
  EXPECT_EQ(problem.words_differing(right), 1);
  ASSERT_TRUE(problem.runs_right(INT64_MAX));
  poke(problem.args().out.data, 3 * row + 512 * 2, 0);  // between rows
  EXPECT_FALSE(problem.is_right(INT64_MAX));
  ASSERT_TRUE(problem.runs_right(INT64_MAX));
  poke(problem.args().out.data, 7 * row, 0x7fc0);  // NaN
  EXPECT_FALSE(problem.is_right(0));
  ASSERT_TRUE(problem.runs_right(INT64_MAX));
  poke(problem.args().lse.data, 2, 0x42c8);  // 100
  EXPECT_FALSE(problem.is_right(INT64_MAX));
  ASSERT_TRUE(problem.runs_right(INT64_MAX));
  poke(problem.args().q.data, 0, 0x3f80);
  EXPECT_FALSE(problem.is_right(0));
}

// Memory with a guard behind it can be used up to its last byte.
TEST(DeviceProblem, GuardedMemoryHoldsTheSame) {
  ProblemSpec spec;
  spec.lengths = {100, 70, 0}, spec.num_heads_q = 3, spec.seqlen_q = 2;
  DeviceProblem plain(spec), guarded(spec, true);
  ASSERT_TRUE(plain.runs_right(INT64_MAX));
  ASSERT_TRUE(guarded.runs_right(INT64_MAX));
  EXPECT_EQ(guarded.words_differing(plain.snapshot()), 0);
}

}  // namespace
}  // namespace flash_mla::test
