#include "cpu/problem.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <random>
#include <stdexcept>

namespace flash_mla::bench {
namespace {

std::uint16_t to_bf16(float x) {
  const auto u = std::bit_cast<std::uint32_t>(x);
  return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
float from_bf16(std::uint16_t x) { return std::bit_cast<float>(std::uint32_t{x} << 16); }

// Normal numbers by the sum of uniform ones: quick, and good enough to be no special case for the hardware.
void fill_random(std::vector<std::uint16_t>& values, std::uint64_t seed) {
  std::uint64_t state = seed * 0x9e3779b97f4a7c15ull + 1;
  for (std::uint16_t& value : values) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    const int sum = static_cast<int>(state >> 56) + static_cast<int>(state >> 48 & 255) +
                    static_cast<int>(state >> 40 & 255) + static_cast<int>(state >> 32 & 255) - 510;
    value = to_bf16(static_cast<float>(sum) / 148.0f);
  }
}

std::vector<float> widened(const std::vector<std::uint16_t>& values) {
  std::vector<float> wide(values.size());
  std::transform(values.begin(), values.end(), wide.begin(), from_bf16);
  return wide;
}

void check(const Status& status) {
  if (!status) throw std::runtime_error(status.message());
}

MemoryView aligned(std::vector<char>& memory, std::int64_t bytes) {
  constexpr std::int64_t kAlignment = 4096;
  memory.resize(static_cast<std::size_t>(bytes + kAlignment));
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  return {reinterpret_cast<void*>((address + kAlignment - 1) / kAlignment * kAlignment), bytes, {}};
}

}  // namespace

std::vector<std::int32_t> conversation_lengths(int batch, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::lognormal_distribution<double> length(std::log(1000.0), std::log(7.0) / 2.326);
  std::vector<std::int32_t> lengths(batch);
  for (std::int32_t& l : lengths) l = std::clamp(static_cast<int>(length(random)), 1, 16384);
  return lengths;
}

Problem::Problem(const Shape& wanted) : shape(wanted), softmax_scale(1.0f / std::sqrt(192.0f)) {
  const std::size_t batch = shape.lengths.size();
  const auto blocks_of = [](std::int32_t length) { return (length + kBlockTokens - 1) / kBlockTokens; };
  std::int64_t pages = 0;
  for (const std::int32_t length : shape.lengths) {
    pages += blocks_of(length);
    table_columns = std::max<std::int64_t>(table_columns, blocks_of(length));
  }
  std::vector<std::int32_t> order(static_cast<std::size_t>(pages));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(7));
  block_table.assign(batch * table_columns, -1);
  for (std::size_t r = 0, next = 0; r < batch; ++r) {
    for (std::int32_t i = 0; i < blocks_of(shape.lengths[r]); ++i) block_table[r * table_columns + i] = order[next++];
  }
  cache.resize(static_cast<std::size_t>(pages) * kBlockTokens * kHeadDim);
  q.resize(static_cast<std::size_t>(rows()) * kHeadDim);
  out.resize(static_cast<std::size_t>(rows()) * kLatentDim);
  out_f32.resize(out.size());
  lse.resize(static_cast<std::size_t>(rows()));
  fill_random(cache, 1);
  fill_random(q, 2);
  cache_f32 = widened(cache);
  q_f32 = widened(q);
}

std::int64_t Problem::rows() const {
  return static_cast<std::int64_t>(shape.lengths.size()) * shape.seqlen_q * shape.heads;
}

double Problem::flop() const {
  double pairs = 0;
  for (const double length : shape.lengths) {
    for (int j = 0; j < shape.seqlen_q; ++j) pairs += std::max(0.0, length - shape.seqlen_q + j + 1) * shape.heads;
  }
  return pairs * 2 * (kHeadDim + kLatentDim);
}

double Problem::cache_bytes() const {
  return std::accumulate(shape.lengths.begin(), shape.lengths.end(), 0.0) * kHeadDim * 2;
}

Step::Step(Problem& problem) : problem_(problem) {
  const auto batch = static_cast<std::int32_t>(problem.shape.lengths.size());
  const Result<Plan> made =
      plan({.max_batch = batch, .max_seqlen_q = problem.shape.seqlen_q, .num_heads_q = problem.shape.heads});
  check(made.status());
  plan_ = *made;
  schedule_view_ = aligned(schedule_memory_, plan_.schedule_bytes());
  scratch_view_ = aligned(scratch_memory_, plan_.scratch_bytes());
}

void Step::schedule() {
  const auto batch = static_cast<std::int64_t>(problem_.shape.lengths.size());
  check(
      flash_mla::schedule(plan_,
                          {.cache_seqlens = TensorView::contiguous(problem_.shape.lengths.data(), DType::i32, {batch}),
                           .seqlen_q = problem_.shape.seqlen_q},
                          schedule_view_));
}

void Step::decode() {
  const auto batch = static_cast<std::int64_t>(problem_.shape.lengths.size());
  const std::int64_t s_q = problem_.shape.seqlen_q, heads = problem_.shape.heads;
  const std::int64_t pages = static_cast<std::int64_t>(problem_.cache.size()) / (kBlockTokens * kHeadDim);
  const DecodeArgs args{
      .q = TensorView::contiguous(problem_.q.data(), DType::bf16, {batch, s_q, heads, kHeadDim}),
      .kv_cache = TensorView::contiguous(problem_.cache.data(), DType::bf16, {pages, kBlockTokens, 1, kHeadDim}),
      .block_table = TensorView::contiguous(problem_.block_table.data(), DType::i32, {batch, problem_.table_columns}),
      .cache_seqlens = TensorView::contiguous(problem_.shape.lengths.data(), DType::i32, {batch}),
      .out = TensorView::contiguous(problem_.out.data(), DType::bf16, {batch, s_q, heads, kLatentDim}),
      .lse = TensorView::contiguous(problem_.lse.data(), DType::f32, {batch, heads, s_q}),
      .softmax_scale = problem_.softmax_scale};
  check(flash_mla::decode(plan_, args, schedule_view_, scratch_view_));
}

}  // namespace flash_mla::bench
