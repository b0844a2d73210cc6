// Joint low-rank compression of keys and values, end to end: one attention layer with the head shape of DeepSeek-V3,
// once with the compressed cache and flash_mla::decode, once with plain per-head keys and values, from the same
// weights.
//
//   c_t = x_t W_DKV              [512]  what is cached, with
//   r_t = rope(x_t W_KR)         [64]   the position, shared by all heads
//   plain:      k_t,h = [c_t W_UK,h | r_t]   v_t,h = c_t W_UV,h   o_h = sum_t softmax(scale <q_h, k_t,h>)_t v_t,h
//   compressed: <q_h, k_t,h> = <[W_UK,h q_nope,h | q_rope,h], [c_t | r_t]>, so W_UK is absorbed into the query, and
//               o_h = (sum_t softmax(..)_t c_t) W_UV,h, so W_UV is applied once to the output, not to every token.
//
// Both serve the same batch: prompts of several lengths, then steps of one new token per request. Exits with 1 if they
// differ by more than the stated error. (DeepSeek-V2, arXiv:2405.04434, section 2.1.)
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "dense.h"
#include "engine_memory.h"
#include "flash_mla/flash_mla.h"

namespace {

using example::Matrix;
using example::Memory;
using example::require;
using example::Tensor;
using flash_mla::DType;
using flash_mla::kHeadDim;
using flash_mla::kLatentDim;
using flash_mla::kRopeDim;

constexpr int kHidden = 1024, kHeads = 16, kNope = 128, kValue = 128;
constexpr std::array<std::int32_t, 5> kPrompts = {1, 37, 64, 130, 250};
constexpr int kBatch = kPrompts.size();
constexpr int kSteps = 4;
const double kScale = 1 / std::sqrt(double{kNope + kRopeDim});

struct Weights {
  Matrix q;       // [hidden, heads * (nope + rope)]
  Matrix down;    // W_DKV [hidden, latent]
  Matrix rope;    // W_KR [hidden, rope]
  Matrix up_key;  // W_UK [latent, heads * nope]
  Matrix up_val;  // W_UV [latent, heads * value]

  // Queries of deviation 3 make scores that differ enough for some tokens to matter more than others.
  explicit Weights(std::mt19937& random)
      : q(example::random_matrix(kHidden, kHeads * (kNope + kRopeDim), 3 / std::sqrt(kHidden), random)),
        down(example::random_matrix(kHidden, kLatentDim, 1 / std::sqrt(kHidden), random)),
        rope(example::random_matrix(kHidden, kRopeDim, 1 / std::sqrt(kHidden), random)),
        up_key(example::random_matrix(kLatentDim, kHeads * kNope, 1 / std::sqrt(kLatentDim), random)),
        up_val(example::random_matrix(kLatentDim, kHeads * kValue, 1 / std::sqrt(kLatentDim), random)) {}
};

// The projections of new tokens, whose positions follow what each request already has.
struct Projected {
  Matrix latent, rope;  // [n, 512], [n, 64]

  Projected(const Weights& w, const Matrix& x, std::span<const std::int32_t> counts,
            std::span<const std::int64_t> lengths)
      : latent(multiply(x, w.down)), rope(multiply(x, w.rope)) {
    for (std::int64_t r = 0, i = 0; r < std::ssize(counts); ++r) {
      for (std::int32_t t = 0; t < counts[r]; ++t) example::rotate(rope.row(i++), lengths[r] + t);
    }
  }
};

// Queries [requests, heads * (nope + rope)] of the newest token of each request.
Matrix project_queries(const Weights& w, const Matrix& x, std::span<const std::int64_t> lengths) {
  Matrix q = multiply(x, w.q);
  for (std::int64_t r = 0; r < q.rows; ++r) {
    for (int h = 0; h < kHeads; ++h) {
      example::rotate(q.row(r).subspan(h * (kNope + kRopeDim) + kNope, kRopeDim), lengths[r] - 1);
    }
  }
  return q;
}

// ---- Without compression: every head keeps its own keys and values -------------------------------------------------

class PlainLayer {
 public:
  explicit PlainLayer(const Weights& w) : weights_(w), keys_(kBatch), values_(kBatch) {}

  void append(const Projected& tokens, std::span<const std::int32_t> counts) {
    const Matrix key = multiply(tokens.latent, weights_.up_key), value = multiply(tokens.latent, weights_.up_val);
    for (std::int64_t r = 0, i = 0; r < std::ssize(counts); ++r) {
      for (std::int32_t t = 0; t < counts[r]; ++t, ++i) {
        std::vector<double>& keys = keys_[r];
        for (int h = 0; h < kHeads; ++h) {
          const auto nope = key.row(i).subspan(h * kNope, kNope), rope = tokens.rope.row(i);
          keys.insert(keys.end(), nope.begin(), nope.end());
          keys.insert(keys.end(), rope.begin(), rope.end());
        }
        values_[r].insert(values_[r].end(), value.row(i).begin(), value.row(i).end());
      }
    }
  }

  // [requests, heads * value]
  Matrix attend(const Matrix& queries) const {
    constexpr int kKey = kNope + kRopeDim;
    Matrix out(queries.rows, kHeads * kValue);
    for (std::int64_t r = 0; r < queries.rows; ++r) {
      const std::int64_t tokens = std::ssize(keys_[r]) / (kHeads * kKey);
      for (int h = 0; h < kHeads; ++h) {
        const auto q = queries.row(r).subspan(h * kKey, kKey);
        std::vector<double> p(tokens);
        for (std::int64_t t = 0; t < tokens; ++t) {
          p[t] = kScale * example::dot(q, std::span(keys_[r]).subspan((t * kHeads + h) * kKey, kKey));
        }
        const double largest = *std::max_element(p.begin(), p.end());
        double sum = 0;
        for (double& x : p) sum += x = std::exp(x - largest);
        for (std::int64_t t = 0; t < tokens; ++t) {
          example::add_scaled(out.row(r).subspan(h * kValue, kValue), p[t] / sum,
                              std::span(values_[r]).subspan((t * kHeads + h) * kValue, kValue));
        }
      }
    }
    return out;
  }

 private:
  const Weights& weights_;
  std::vector<std::vector<double>> keys_;    // of each request, [tokens, heads, nope + rope]
  std::vector<std::vector<double>> values_;  // of each request, [tokens, heads, value]
};

// ---- With compression: the paged latent cache, and decode between two absorbed matrices ---------------------------

class CompressedLayer {
 public:
  CompressedLayer(const Weights& w, DType dtype)
      : weights_(w),
        dtype_(dtype),
        cache_(require(flash_mla::PagedKvCache::create({.dtype = dtype, .num_pages = 16}))),
        plan_(require(flash_mla::plan({.dtype = dtype, .max_batch = kBatch, .num_heads_q = kHeads}))),
        schedule_(plan_.schedule_bytes()),
        scratch_(plan_.scratch_bytes()) {
    for (int r = 0; r < kBatch; ++r) requests_.push_back(require(cache_.add()));
  }

  void append(const Projected& tokens, std::span<const std::int32_t> counts) {
    Tensor c_kv(dtype_, {tokens.latent.rows, 1, kLatentDim}), k_pe(dtype_, {tokens.rope.rows, 1, kRopeDim});
    for (std::size_t i = 0; i < tokens.latent.values.size(); ++i) c_kv.set(i, tokens.latent.values[i]);
    for (std::size_t i = 0; i < tokens.rope.values.size(); ++i) k_pe.set(i, tokens.rope.values[i]);
    require(cache_.append(requests_, counts, c_kv.view(), k_pe.view()));
  }

  // [requests, heads * value]
  Matrix attend(const Matrix& queries) {
    const std::int64_t columns = require(cache_.max_pages(requests_));
    std::vector<std::int32_t> block_table(kBatch * columns), lengths(kBatch);
    require(cache_.tables(requests_, columns, block_table, lengths));
    const auto lengths_view = flash_mla::TensorView::contiguous(lengths.data(), DType::i32, {kBatch});
    require(flash_mla::schedule(plan_, {.cache_seqlens = lengths_view}, schedule_.view()));

    Tensor q(dtype_, {kBatch, 1, kHeads, kHeadDim}), out(dtype_, {kBatch, 1, kHeads, kLatentDim});
    absorb_up_key(queries, q);
    flash_mla::DecodeArgs args;
    args.q = q.view();
    args.kv_cache = require(cache_.layer(0));
    args.block_table = flash_mla::TensorView::contiguous(block_table.data(), DType::i32, {kBatch, columns});
    args.cache_seqlens = lengths_view;
    args.out = out.view();
    args.softmax_scale = static_cast<float>(kScale);
    require(flash_mla::decode(plan_, args, schedule_.view(), scratch_.view()));
    return apply_up_value(out);
  }

 private:
  // q[r, h] = [W_UK,h q_nope | q_rope]
  void absorb_up_key(const Matrix& queries, Tensor& q) const {
    for (int row = 0; row < kBatch * kHeads; ++row) {
      const int h = row % kHeads;
      const auto query = queries.row(row / kHeads).subspan(h * (kNope + kRopeDim), kNope + kRopeDim);
      for (int c = 0; c < kLatentDim; ++c) {
        const auto up = weights_.up_key.row(c).subspan(h * kNope, kNope);
        q.set(row * kHeadDim + c, example::dot(up, query.first(kNope)));
      }
      for (int c = 0; c < kRopeDim; ++c) q.set(row * kHeadDim + kLatentDim + c, query[kNope + c]);
    }
  }

  // o[r, h] = out[r, h] W_UV,h
  Matrix apply_up_value(const Tensor& out) const {
    Matrix result(kBatch, kHeads * kValue);
    for (int row = 0; row < kBatch * kHeads; ++row) {
      const int h = row % kHeads;
      for (int c = 0; c < kLatentDim; ++c) {
        example::add_scaled(result.row(row / kHeads).subspan(h * kValue, kValue), out.get(row * kLatentDim + c),
                            weights_.up_val.row(c).subspan(h * kValue, kValue));
      }
    }
    return result;
  }

  const Weights& weights_;
  DType dtype_;
  flash_mla::PagedKvCache cache_;
  flash_mla::Plan plan_;
  Memory schedule_, scratch_;
  std::vector<flash_mla::RequestId> requests_;
};

// ---- The comparison ------------------------------------------------------------------------------------------------

// Largest |x - y| / |y| over the rows of `width`.
double largest_error(const Matrix& x, const Matrix& y, int width) {
  double largest = 0;
  for (std::size_t first = 0; first < y.values.size(); first += width) {
    double difference = 0, norm = 0;
    for (std::size_t i = first; i < first + width; ++i) {
      difference += (x.values[i] - y.values[i]) * (x.values[i] - y.values[i]);
      norm += y.values[i] * y.values[i];
    }
    const double error = std::sqrt(difference / norm);
    largest = std::max(largest, std::isnan(error) ? INFINITY : error);
  }
  return largest;
}

void print_bytes_per_token(int heads) {
  const int plain = 2 * heads * (kNope + kRopeDim + kValue), compressed = 2 * kHeadDim;
  std::printf("  %3d heads: %6d bytes with a key of %d and a value of %d per head, %d compressed: %.1f times less\n",
              heads, plain, kNope + kRopeDim, kValue, compressed, static_cast<double>(plain) / compressed);
}

}  // namespace

int main() {
  std::mt19937 random(1);
  const Weights weights(random);
  PlainLayer plain(weights);
  struct Run {
    const char* name;
    double allowed;  // roundings of q, cache, weights and out (2^-9 each in bf16, 2^-24 in fp32), made larger by exp
    CompressedLayer layer;
    double error = 0;
  };
  Run runs[] = {{"fp32", 2e-5, {weights, DType::f32}}, {"bf16", 3e-2, {weights, DType::bf16}}};

  std::vector<std::int64_t> lengths(kBatch, 0);
  for (int step = 0; step <= kSteps; ++step) {  // step 0 fills in the prompts
    std::vector<std::int32_t> counts(kBatch, 1);
    if (step == 0) counts.assign(kPrompts.begin(), kPrompts.end());
    const std::int64_t n = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
    const Matrix x = example::random_matrix(n, kHidden, 1, random);
    const Projected tokens(weights, x, counts, lengths);
    for (int r = 0; r < kBatch; ++r) lengths[r] += counts[r];
    plain.append(tokens, counts);
    for (Run& run : runs) run.layer.append(tokens, counts);
    if (step == 0) continue;
    const Matrix queries = project_queries(weights, x, lengths);
    const Matrix expected = plain.attend(queries);
    for (Run& run : runs) {
      run.error = std::max(run.error, largest_error(run.layer.attend(queries), expected, kValue));
    }
  }

  std::printf(
      "One MLA layer, hidden size %d, %d heads; %d requests with prompts of %d to %d tokens, %d decode steps.\n",
      kHidden, kHeads, kBatch, kPrompts.front(), kPrompts.back(), kSteps);
  std::printf("Attention over the compressed cache against per-head keys and values from the same weights,\n");
  std::printf("largest relative error of a head's output:\n");
  bool equal = true;
  for (const Run& run : runs) {
    const bool ok = run.error <= run.allowed;
    std::printf("  %s: %.1e, allowed %.0e: %s\n", run.name, run.error, run.allowed, ok ? "equal" : "DIFFERENT");
    equal = equal && ok;
  }
  std::printf("Cache of one token in one layer, 16-bit elements:\n");
  print_bytes_per_token(kHeads);
  print_bytes_per_token(128);
  return equal ? 0 : 1;
}
