#include "cpu/problem.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <random>
#include <span>
#include <stdexcept>

namespace flash_mla::bench {
namespace {

std::uint16_t to_bf16(float x) {
  const auto u = std::bit_cast<std::uint32_t>(x);
  return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
float from_bf16(std::uint16_t x) { return std::bit_cast<float>(std::uint32_t{x} << 16); }

// Normal numbers by the sum of uniform ones: quick, and good enough to be no special case for the hardware.
void fill_random(std::span<std::uint16_t> values, std::uint64_t seed) {
  std::uint64_t state = seed * 0x9e3779b97f4a7c15ull + 1;
  for (std::uint16_t& value : values) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    const int sum = static_cast<int>(state >> 56) + static_cast<int>(state >> 48 & 255) +
                    static_cast<int>(state >> 40 & 255) + static_cast<int>(state >> 32 & 255) - 510;
    value = to_bf16(static_cast<float>(sum) / 148.0f);
  }
}

void widen(std::span<const std::uint16_t> values, float* wide) {
  std::transform(values.begin(), values.end(), wide, from_bf16);
}

void check(const Status& status) {
  if (!status) throw std::runtime_error(status.message());
}

std::int64_t blocks_of(std::int32_t length) { return (length + kBlockTokens - 1) / kBlockTokens; }

std::int64_t blocks_of(const Shape& shape) {
  std::int64_t blocks = 0;
  for (const std::int32_t length : shape.lengths) blocks += blocks_of(length);
  return blocks;
}

PagedKvCache make_cache(const Shape& shape, DType dtype) {
  Result<PagedKvCache> made =
      PagedKvCache::create({.dtype = dtype, .num_pages = static_cast<std::int32_t>(blocks_of(shape))});
  check(made.status());
  return *std::move(made);
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

Problem::Problem(const Shape& wanted)
    : shape(wanted),
      storage(make_cache(wanted, DType::bf16)),
      storage_f32(make_cache(wanted, DType::f32)),
      cache(*storage.layer(0)),
      cache_f32(*storage_f32.layer(0)),
      softmax_scale(1.0f / std::sqrt(192.0f)) {
  const std::size_t batch = shape.lengths.size();
  const std::int64_t pages = blocks_of(shape);
  for (const std::int32_t length : shape.lengths) table_columns = std::max(table_columns, blocks_of(length));
  std::vector<std::int32_t> order(static_cast<std::size_t>(pages));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(7));
  block_table.assign(batch * table_columns, -1);
  for (std::size_t r = 0, next = 0; r < batch; ++r) {
    for (std::int32_t i = 0; i < blocks_of(shape.lengths[r]); ++i) block_table[r * table_columns + i] = order[next++];
  }
  q.resize(static_cast<std::size_t>(rows()) * kHeadDim);
  out.resize(static_cast<std::size_t>(rows()) * kLatentDim);
  out_f32.resize(out.size());
  lse.resize(static_cast<std::size_t>(rows()));
  const std::span cached(static_cast<std::uint16_t*>(cache.data),
                         static_cast<std::size_t>(pages) * kBlockTokens * kHeadDim);
  fill_random(cached, 1);
  fill_random(q, 2);
  widen(cached, static_cast<float*>(cache_f32.data));
  q_f32.resize(q.size());
  widen(q, q_f32.data());
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
  const DecodeArgs args{
      .q = TensorView::contiguous(problem_.q.data(), DType::bf16, {batch, s_q, heads, kHeadDim}),
      .kv_cache = problem_.cache,
      .block_table = TensorView::contiguous(problem_.block_table.data(), DType::i32, {batch, problem_.table_columns}),
      .cache_seqlens = TensorView::contiguous(problem_.shape.lengths.data(), DType::i32, {batch}),
      .out = TensorView::contiguous(problem_.out.data(), DType::bf16, {batch, s_q, heads, kLatentDim}),
      .lse = TensorView::contiguous(problem_.lse.data(), DType::f32, {batch, heads, s_q}),
      .softmax_scale = problem_.softmax_scale};
  check(flash_mla::decode(plan_, args, schedule_view_, scratch_view_));
}

}  // namespace flash_mla::bench
