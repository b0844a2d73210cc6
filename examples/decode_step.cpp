// The shortest use of the library: three requests in a paged cache, one decode step over all of them.
#include <cstdint>
#include <cstdio>
#include <vector>

#include "engine_memory.h"
#include "flash_mla/flash_mla.h"

using namespace flash_mla;
using example::Memory;
using example::require;
using example::Tensor;

int main() {
  constexpr int kBatch = 3, kHeads = 16;
  const std::vector<std::int32_t> tokens = {5, 100, 70};
  constexpr std::int64_t kTokens = 5 + 100 + 70;

  // Once: the page pool, and a plan from upper bounds.
  PagedKvCache cache = require(PagedKvCache::create({.dtype = DType::bf16, .num_pages = 8}));
  Plan step = require(plan({.dtype = DType::bf16, .max_batch = kBatch, .num_heads_q = kHeads}));
  Memory schedule_memory(step.schedule_bytes()), scratch(step.scratch_bytes());

  // Requests come and grow. Here every token is the same, so attention must give back its latent part.
  std::vector<RequestId> requests;
  for (int i = 0; i < kBatch; ++i) requests.push_back(require(cache.add()));
  Tensor c_kv(DType::bf16, {kTokens, 1, kLatentDim}), k_pe(DType::bf16, {kTokens, 1, kRopeDim});
  for (std::int64_t i = 0; i < kTokens * kLatentDim; ++i) c_kv.set(i, static_cast<double>(i % kLatentDim));
  require(cache.append(requests, tokens, c_kv.view(), k_pe.view()));

  // Every step: where the tokens are, how to share the work, and, in each layer, the attention.
  const std::int64_t columns = require(cache.max_pages(requests));
  std::vector<std::int32_t> table(kBatch * columns), lengths(kBatch);
  require(cache.tables(requests, columns, table, lengths));

  Tensor q(DType::bf16, {kBatch, 1, kHeads, kHeadDim}), out(DType::bf16, {kBatch, 1, kHeads, kLatentDim});
  DecodeArgs args;
  args.q = q.view();
  args.kv_cache = require(cache.layer(0));
  args.block_table = TensorView::contiguous(table.data(), DType::i32, {kBatch, columns});
  args.cache_seqlens = TensorView::contiguous(lengths.data(), DType::i32, {kBatch});
  args.out = out.view();
  args.softmax_scale = 0.0722f;  // 1 / sqrt(128 + 64)
  require(schedule(step, {.cache_seqlens = args.cache_seqlens}, schedule_memory.view()));
  require(decode(step, args, schedule_memory.view(), scratch.view()));

  bool right = true;
  for (std::int64_t i = 0; i < kBatch * kHeads * kLatentDim; ++i) {
    right = right && out.get(i) == c_kv.get(i % kLatentDim);
  }
  std::printf("%d requests decoded, %d of %d pages in use: %s\n", kBatch, cache.stats().pages_in_use,
              cache.stats().pages_total, right ? "right" : "WRONG");
  return right ? 0 : 1;
}
