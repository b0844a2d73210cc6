// The reference against results known without it: cases worked by hand and laws of softmax attention.
#include "reference/reference.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "reference/float_format.h"
#include "reference/problem.h"

namespace flash_mla::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// One request of f32 tensors, h_kv = 1, pages of 2 tokens, all zero but what a test writes.
struct Tiny {
  static constexpr std::int32_t kPage = 2;
  std::int32_t length, queries, heads;
  std::vector<float> q, cache, out, lse;
  std::vector<std::int32_t> table, lengths;
  DecodeArgs args;

  Tiny(std::int32_t length_, std::int32_t queries_, std::int32_t heads_)
      : length(length_), queries(queries_), heads(heads_) {
    const std::int32_t pages = (length + kPage - 1) / kPage;
    q.assign(static_cast<std::size_t>(queries * heads * kHeadDim), 0);
    cache.assign(static_cast<std::size_t>(pages * kPage * kHeadDim), 0);
    out.assign(static_cast<std::size_t>(queries * heads * kLatentDim), 0);
    lse.assign(static_cast<std::size_t>(queries * heads), 0);
    for (std::int32_t page = pages; page > 0; --page) table.push_back(page - 1);  // last page first
    lengths = {length};
    args.q = TensorView::contiguous(q.data(), DType::f32, {1, queries, heads, kHeadDim});
    args.kv_cache = TensorView::contiguous(cache.data(), DType::f32, {pages, kPage, 1, kHeadDim});
    args.block_table = TensorView::contiguous(table.data(), DType::i32, {1, pages});
    args.cache_seqlens = TensorView::contiguous(lengths.data(), DType::i32, {1});
    args.out = TensorView::contiguous(out.data(), DType::f32, {1, queries, heads, kLatentDim});
    args.lse = TensorView::contiguous(lse.data(), DType::f32, {1, heads, queries});
    args.softmax_scale = 1;
  }

  float& query(std::int32_t j, std::int32_t head, int column) {
    return q[static_cast<std::size_t>((j * heads + head) * kHeadDim + column)];
  }
  float& token(std::int32_t t, int column) {
    const std::int32_t row = table[static_cast<std::size_t>(t / kPage)] * kPage + t % kPage;
    return cache[static_cast<std::size_t>(row * kHeadDim + column)];
  }
};

// Scores ln 1 and ln 3, so weights 1/4 and 3/4.
TEST(Reference, TwoTokensByHand) {
  Tiny tiny(2, 1, 1);
  tiny.args.softmax_scale = 0.5;
  tiny.query(0, 0, 570) = 2;  // a rope column: scores, but is no value
  tiny.token(1, 570) = static_cast<float>(std::log(3.0));
  tiny.token(0, 0) = 8;
  tiny.token(1, 0) = 4, tiny.token(1, 511) = 1;
  const Row row = reference_row(tiny.args, true, {}).exact;
  EXPECT_NEAR(row.out[0], 0.25 * 8 + 0.75 * 4, 1e-6);
  EXPECT_NEAR(row.out[511], 0.75, 1e-6);
  EXPECT_EQ(row.out[1], 0);
  EXPECT_NEAR(row.lse, std::log(4.0), 1e-6);
}

// q = 0 makes all weights equal: the mean of the tokens, over 5 tokens in pages out of order.
TEST(Reference, UniformAttentionIsTheMean) {
  Tiny tiny(5, 1, 2);
  for (std::int32_t t = 0; t < 5; ++t) tiny.token(t, 7) = static_cast<float>(t * t);
  const Row row = reference_row(tiny.args, true, {0, 0, 1}).exact;
  EXPECT_DOUBLE_EQ(row.out[7], (0 + 1 + 4 + 9 + 16) / 5.0);
  EXPECT_DOUBLE_EQ(row.lse, std::log(5.0));
}

// Query j of s_q sees tokens t <= length - s_q + j; without the mask, all.
TEST(Reference, CausalWindowIsBottomRightAligned) {
  Tiny tiny(4, 3, 1);
  for (std::int32_t t = 0; t < 4; ++t) tiny.token(t, t) = 1;
  for (std::int32_t j = 0; j < 3; ++j) {
    const std::int32_t visible = 2 + j;
    const Row causal = reference_row(tiny.args, true, {0, j, 0}).exact;
    const Row full = reference_row(tiny.args, false, {0, j, 0}).exact;
    for (std::int32_t t = 0; t < 4; ++t) {
      EXPECT_DOUBLE_EQ(causal.out[static_cast<std::size_t>(t)], t < visible ? 1.0 / visible : 0.0) << j << " " << t;
      EXPECT_DOUBLE_EQ(full.out[static_cast<std::size_t>(t)], 0.25);
    }
    EXPECT_DOUBLE_EQ(causal.lse, std::log(visible));
  }
}

TEST(Reference, RowsThatSeeNothing) {
  Tiny tiny(2, 4, 1);
  for (std::int32_t j = 0; j < 2; ++j) {
    const ReferenceRow row = reference_row(tiny.args, true, {0, j, 0});
    EXPECT_EQ(row.exact.out, Row{}.out);
    EXPECT_EQ(row.model.out, Row{}.out);
    EXPECT_EQ(row.exact.lse, kInfinity);
  }
  EXPECT_EQ(reference_row(tiny.args, true, {0, 2, 0}).exact.lse, 0);  // ln exp(0)
  Tiny none(0, 1, 1);
  EXPECT_EQ(reference_row(none.args, false, {}).exact.lse, kInfinity);
}

// Adding the same constant to all scores moves the lse and nothing else, far beyond exp's range too.
TEST(Reference, ShiftInvariance) {
  for (const float shift : {1.0f, -3.0f, 4096.0f, -65536.0f}) {
    Tiny tiny(4, 1, 1);
    tiny.query(0, 0, 0) = 1, tiny.query(0, 0, 560) = 1;
    for (std::int32_t t = 0; t < 4; ++t) tiny.token(t, 0) = 0.25f * static_cast<float>(t);
    const Row before = reference_row(tiny.args, true, {}).exact;
    for (std::int32_t t = 0; t < 4; ++t) tiny.token(t, 560) = shift;
    const Row after = reference_row(tiny.args, true, {}).exact;
    EXPECT_NEAR(after.out[0], before.out[0], 1e-9);
    EXPECT_NEAR(after.lse, before.lse + shift, 1e-9 * std::fabs(shift) + 1e-12);
  }
}

TEST(Reference, LseIsTheNaturalLogarithmOfTheSum) {
  Tiny tiny(3, 1, 1);
  tiny.query(0, 0, 1) = 1;
  double sum = 0;
  for (std::int32_t t = 0; t < 3; ++t) {
    tiny.token(t, 1) = static_cast<float>(t) - 1.5f;
    sum += std::exp(t - 1.5);
  }
  EXPECT_NEAR(reference_row(tiny.args, true, {}).exact.lse, std::log(sum), 1e-12);
}

// A slow second opinion on a random problem with every layout: sums in long double, each element fetched by its
// address.
void check_against_second_opinion(const ProblemSpec& spec) {
  const Problem problem(spec);
  const DecodeArgs& args = problem.decode_args();
  Reference reference(args, spec.causal);
  std::int32_t first_query = 0;
  for (std::int32_t r = 0; r < reference.batch(); first_query += reference.queries(r), ++r) {
    const std::int32_t queries = reference.queries(r), length = spec.lengths[static_cast<std::size_t>(r)];
    for (std::int32_t j = 0; j < queries; ++j) {
      for (std::int32_t head = 0; head < spec.num_heads_q; ++head) {
        const auto q = [&](int c) {
          const bool rope = c >= kLatentDim && args.q_rope.given();
          const TensorView& view = rope ? args.q_rope : args.q;
          std::int64_t at = head * view.strides[view.rank - 2] + (rope ? c - kLatentDim : c);
          at += spec.ragged ? (first_query + j) * view.strides[0] : r * view.strides[0] + j * view.strides[1];
          return load_element(spec.dtype, static_cast<char*>(view.data) + at * size_in_bytes(spec.dtype));
        };
        const auto k = [&](std::int32_t t, int c) {
          const bool rope = c >= kLatentDim && args.k_rope_cache.given();
          const TensorView& view = rope ? args.k_rope_cache : args.kv_cache;
          const std::int64_t page =
              static_cast<std::int32_t*>(args.block_table.data)[r * args.block_table.shape[1] + t / spec.page_size];
          const std::int64_t at = page * view.strides[0] + t % spec.page_size * view.strides[1] +
                                  head / (spec.num_heads_q / spec.num_heads_kv) * view.strides[2] +
                                  (rope ? c - kLatentDim : c);
          return load_element(spec.dtype, static_cast<char*>(view.data) + at * size_in_bytes(spec.dtype));
        };
        const Row row = reference.row({r, j, head}).exact;
        long double sum = 0, out = 0;
        const int column = (7 * head + 100 * j + r) % kLatentDim;
        for (std::int32_t t = 0; t < length; ++t) {
          if (spec.causal && t > length - queries + j) continue;
          long double score = 0;
          for (int c = 0; c < kHeadDim; ++c) score += static_cast<long double>(q(c)) * k(t, c);
          const long double weight = std::exp(score * spec.softmax_scale);
          sum += weight;
          out += weight * k(t, column);
        }
        if (sum == 0) {
          EXPECT_EQ(row.lse, kInfinity);
          EXPECT_EQ(row.out[static_cast<std::size_t>(column)], 0);
        } else {
          EXPECT_NEAR(row.lse, static_cast<double>(std::log(sum)), 1e-9);
          EXPECT_NEAR(row.out[static_cast<std::size_t>(column)], static_cast<double>(out / sum), 1e-9);
        }
      }
    }
  }
}

TEST(Reference, SecondOpinionUniform) {
  ProblemSpec spec;
  spec.lengths = {0, 1, 37, 64};
  spec.seqlen_q = 2, spec.num_heads_q = 4, spec.num_heads_kv = 2, spec.page_size = 16;
  spec.softmax_scale = 0.0625;
  check_against_second_opinion(spec);
}

TEST(Reference, SecondOpinionRaggedSeparateStrided) {
  ProblemSpec spec;
  spec.lengths = {20, 0, 3, 33};
  spec.ragged = true, spec.queries = {1, 2, 0, 3};
  spec.num_heads_q = 6, spec.num_heads_kv = 3, spec.page_size = 32, spec.dtype = DType::f16;
  spec.joint_q = spec.joint_cache = false, spec.row_gap = 5, spec.layers = 3, spec.heads_first = true;
  spec.offset_elements = 3, spec.exact_table = true, spec.softmax_scale = 0.0625, spec.causal = false;
  check_against_second_opinion(spec);
}

// The model rounds the right things: P (weights that bf16 cannot hold) and out.
TEST(Reference, ModelRoundsWeightsAndOutput) {
  ProblemSpec spec;
  spec.lengths = {2};
  spec.num_heads_q = 1;
  Problem problem(spec);
  auto* cache = static_cast<char*>(problem.decode_args().kv_cache.data);
  auto* q = static_cast<char*>(problem.decode_args().q.data);
  const auto* table = static_cast<std::int32_t*>(problem.decode_args().block_table.data);
  for (int c = 0; c < kHeadDim; ++c) store_element(DType::bf16, q + 2 * c, c == 570 ? 1 : 0);
  for (int t = 0; t < 2; ++t) {
    for (int c = 0; c < kHeadDim; ++c) {
      const std::int64_t at = (table[0] * 64 + t) * kHeadDim + c;
      store_element(DType::bf16, cache + 2 * at, c == 570 ? -t : (c == 0 ? t : 0));
    }
  }
  const double weight = std::exp(-static_cast<double>(problem.spec().softmax_scale));
  const ReferenceRow row = Reference(problem.decode_args(), true).row({});
  EXPECT_NEAR(row.exact.out[0], weight / (1 + weight), 1e-12);
  const double rounded = round_to(DType::bf16, weight);
  EXPECT_NE(rounded, weight);
  EXPECT_EQ(row.model.out[0], round_to(DType::bf16, rounded / (1 + weight)));
  EXPECT_EQ(row.model.lse, row.exact.lse);
}

}  // namespace
}  // namespace flash_mla::reference
