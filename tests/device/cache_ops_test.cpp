// append_kv, copy_pages and PagedKvCache on the GPU: every byte of the cache is compared with what plain loops on the
// host make of the same bytes, so a write to a wrong place is seen as well as a missing one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "device/gpu.h"
#include "flash_mla/flash_mla.h"

namespace flash_mla {
namespace {

using test::DeviceMemory;
using test::downloaded;
using test::uploaded;

constexpr Device kGpu = {DeviceType::cuda, 0};
using Elements = std::vector<std::uint16_t>;

Elements random_elements(std::int64_t n, std::uint32_t seed) {
  std::mt19937 random(seed);
  Elements elements(n);
  for (std::uint16_t& x : elements) x = static_cast<std::uint16_t>(random());
  return elements;
}

void synchronize() { FLASH_MLA_REQUIRE(cudaStreamSynchronize(nullptr)); }

// A tensor of 16-bit elements with gaps between its outermost and its other entries.
TensorView strided(std::initializer_list<std::int64_t> dims, std::int64_t inner_gap, std::int64_t outer_gap) {
  TensorView view = TensorView::contiguous(nullptr, DType::bf16, dims, kGpu);
  for (int axis = view.rank - 2; axis >= 0; --axis) {
    view.strides[axis] = view.strides[axis + 1] * view.shape[axis + 1];
    if (axis == view.rank - 2) view.strides[axis] += inner_gap;
    if (axis == 0) view.strides[axis] += outer_gap;
  }
  return view;
}

struct AppendCase {
  std::int64_t tokens;
  int heads, page_size;
  bool joint;
  std::int64_t gap;  // multiples of 8 elements
};

void check_append(const AppendCase& c) {
  SCOPED_TRACE(testing::Message() << c.tokens << " tokens, " << c.heads << " heads, page " << c.page_size << ", joint "
                                  << c.joint << ", gap " << c.gap);
  const std::int64_t pages = c.tokens / c.page_size + 3, slots = pages * c.page_size;
  const int width = c.joint ? kHeadDim : kLatentDim;
  TensorView c_kv = strided({c.tokens, c.heads, kLatentDim}, c.gap, 2 * c.gap);
  TensorView k_pe = strided({c.tokens, c.heads, kRopeDim}, c.gap, 0);
  TensorView latent = strided({pages, c.page_size, c.heads, width}, c.gap, 8 * c.gap);
  TensorView rope = strided({pages, c.page_size, c.heads, kRopeDim}, 0, c.gap);
  const Elements c_kv_host = random_elements(std::max<std::int64_t>(c.tokens, 1) * c_kv.strides[0], 1);
  const Elements k_pe_host = random_elements(std::max<std::int64_t>(c.tokens, 1) * k_pe.strides[0], 2);
  Elements latent_host = random_elements(pages * latent.strides[0], 3);
  Elements rope_host = random_elements(pages * rope.strides[0], 4);
  std::vector<std::int64_t> mapping(slots);
  std::iota(mapping.begin(), mapping.end(), 0);
  std::shuffle(mapping.begin(), mapping.end(), std::mt19937(5));
  mapping.resize(c.tokens);
  for (std::int64_t i = 0; i < c.tokens; i += 5) mapping[i] = i % 2 ? -1 - i : slots + i;  // to be skipped

  const DeviceMemory c_kv_gpu = uploaded(c_kv_host), k_pe_gpu = uploaded(k_pe_host), mapping_gpu = uploaded(mapping);
  const DeviceMemory latent_gpu = uploaded(latent_host), rope_gpu = uploaded(rope_host);
  c_kv.data = c_kv_gpu.data(), k_pe.data = k_pe_gpu.data();
  latent.data = latent_gpu.data(), rope.data = rope_gpu.data();
  AppendArgs args{.c_kv = c_kv, .k_pe = k_pe, .kv_cache = latent, .k_rope_cache = {}, .slot_mapping = {}};
  if (!c.joint) args.k_rope_cache = rope;
  args.slot_mapping = TensorView::contiguous(mapping_gpu.data(), DType::i64, {c.tokens}, kGpu);
  const Status status = append_kv(args);
  ASSERT_TRUE(status.ok()) << status.message();
  synchronize();

  for (std::int64_t i = 0; i < c.tokens; ++i) {
    const std::int64_t page = mapping[i] / c.page_size, row = mapping[i] % c.page_size;
    if (mapping[i] < 0 || mapping[i] >= slots) continue;
    for (int h = 0; h < c.heads; ++h) {
      std::uint16_t* to = &latent_host[page * latent.strides[0] + row * latent.strides[1] + h * latent.strides[2]];
      std::memcpy(to, &c_kv_host[i * c_kv.strides[0] + h * c_kv.strides[1]], kLatentDim * 2);
      std::uint16_t* rope_to =
          c.joint ? to + kLatentDim : &rope_host[page * rope.strides[0] + row * rope.strides[1] + h * rope.strides[2]];
      std::memcpy(rope_to, &k_pe_host[i * k_pe.strides[0] + h * k_pe.strides[1]], kRopeDim * 2);
    }
  }
  EXPECT_TRUE(downloaded<std::uint16_t>(latent_gpu) == latent_host);
  EXPECT_TRUE(downloaded<std::uint16_t>(rope_gpu) == rope_host);
}

TEST(CacheOps, SanitizeAppend) {
  for (std::int64_t tokens : {0, 1, 3, 64, 300}) {
    for (int heads : {1, 2, 3}) {
      for (int page_size : {16, 64, 192}) {
        for (bool joint : {true, false}) {
          check_append({tokens, heads, page_size, joint, 0});
          check_append({tokens, heads, page_size, joint, 24});
        }
      }
    }
  }
}

TEST(CacheOps, AppendOfManyTokens) { check_append({20000, 2, 64, true, 8}); }

TEST(CacheOps, AppendAndCopyBeyondInt32Offsets) {
  // Three pages, so far apart that the last one begins behind 2^32 elements.
  const std::int64_t page_stride = (std::int64_t{1} << 31) + 4096, page_elements = 64 * kHeadDim;
  std::size_t free = 0, total = 0;
  FLASH_MLA_REQUIRE(cudaMemGetInfo(&free, &total));
  const std::int64_t bytes = (2 * page_stride + page_elements) * 2;
  if (static_cast<std::int64_t>(free) < bytes + (1 << 28)) GTEST_SKIP() << "needs " << bytes << " bytes";
  DeviceMemory cache(bytes);
  TensorView view = TensorView::contiguous(cache.data(), DType::bf16, {3, 64, 1, kHeadDim}, kGpu);
  view.strides[0] = page_stride;
  const std::vector<std::int64_t> slots = {64 + 5, 128 + 63}, pairs = {2, 0};
  const Elements c_kv = random_elements(2 * kLatentDim, 1), k_pe = random_elements(2 * kRopeDim, 2);
  const DeviceMemory c_kv_gpu = uploaded(c_kv), k_pe_gpu = uploaded(k_pe), slots_gpu = uploaded(slots);
  const DeviceMemory pairs_gpu = uploaded(pairs);
  const Status appended =
      append_kv({.c_kv = TensorView::contiguous(c_kv_gpu.data(), DType::bf16, {2, 1, kLatentDim}, kGpu),
                 .k_pe = TensorView::contiguous(k_pe_gpu.data(), DType::bf16, {2, 1, kRopeDim}, kGpu),
                 .kv_cache = view,
                 .k_rope_cache = {},
                 .slot_mapping = TensorView::contiguous(slots_gpu.data(), DType::i64, {2}, kGpu)});
  ASSERT_TRUE(appended.ok()) << appended.message();
  const Status copied = copy_pages(view, TensorView::contiguous(pairs_gpu.data(), DType::i64, {1, 2}, kGpu));
  ASSERT_TRUE(copied.ok()) << copied.message();
  synchronize();
  const auto expect_row = [&](std::int64_t page, std::int64_t row, int token) {
    Elements stored(kHeadDim);
    const auto* from = static_cast<const std::uint16_t*>(cache.data()) + page * page_stride + row * kHeadDim;
    FLASH_MLA_REQUIRE(cudaMemcpy(stored.data(), from, kHeadDim * 2, cudaMemcpyDefault));
    EXPECT_TRUE(std::equal(stored.begin(), stored.begin() + kLatentDim, &c_kv[token * kLatentDim])) << page;
    EXPECT_TRUE(std::equal(stored.begin() + kLatentDim, stored.end(), &k_pe[token * kRopeDim])) << page;
  };
  expect_row(1, 5, 0);
  expect_row(2, 63, 1);
  expect_row(0, 63, 1);  // the copy
}

void check_copy(std::int64_t page_size, int heads, int columns, std::int64_t gap, std::int64_t num_pairs) {
  SCOPED_TRACE(testing::Message() << page_size << " x " << heads << " x " << columns << ", gap " << gap);
  const std::int64_t pages = 2 * num_pairs + 1;
  TensorView view = strided({pages, page_size, heads, columns}, gap, 3 * gap);
  view.strides[0] = (view.strides[0] + 7) / 8 * 8;  // 16 bytes, as the inner strides are by the choice of gap
  Elements host = random_elements(pages * view.strides[0], 7);
  std::vector<std::int64_t> order(pages), pairs;
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(9));
  for (std::int64_t i = 0; i < num_pairs; ++i) {
    pairs.push_back(i % 3 ? order[i] : order[0]);  // sources may repeat
    pairs.push_back(order[num_pairs + i]);
  }
  const DeviceMemory memory = uploaded(host), pairs_gpu = uploaded(pairs);
  view.data = memory.data();
  const Status status = copy_pages(view, TensorView::contiguous(pairs_gpu.data(), DType::i64, {num_pairs, 2}, kGpu));
  ASSERT_TRUE(status.ok()) << status.message();
  synchronize();
  for (std::int64_t i = 0; i < num_pairs; ++i) {
    for (std::int64_t row = 0; row < page_size * heads; ++row) {
      const std::int64_t at = row / heads * view.strides[1] + row % heads * view.strides[2];
      std::copy_n(&host[pairs[2 * i] * view.strides[0] + at], columns, &host[pairs[2 * i + 1] * view.strides[0] + at]);
    }
  }
  EXPECT_TRUE(downloaded<std::uint16_t>(memory) == host);
}

TEST(CacheOps, SanitizeCopyPages) {
  check_copy(64, 1, kHeadDim, 0, 1);
  check_copy(64, 1, kHeadDim, 0, 40);
  check_copy(16, 3, kHeadDim, 8, 5);
  check_copy(192, 2, kLatentDim, 0, 3);
  check_copy(64, 1, kRopeDim, 64, 7);
  check_copy(16, 2, 100, 4, 3);  // rows of 200 bytes: no multiple of 16, but strides are
}

TEST(CacheOps, SanitizePagedKvCache) {
  constexpr int kLayers = 2;
  PagedKvCache cache = *PagedKvCache::create({.device = kGpu, .num_layers = kLayers, .num_pages = 8, .page_size = 32});
  for (int layer = 0; layer < kLayers; ++layer) {  // whole pages are copied, also where no token has been written yet
    FLASH_MLA_REQUIRE(cudaMemset((*cache.layer(layer)).data, 0xff, std::size_t{8 * 32 * kHeadDim * 2}));
  }
  const auto append = [&](RequestId id, std::int32_t n, std::uint16_t first) {
    ASSERT_TRUE(cache.grow(std::span(&id, 1), std::span(&n, 1)).ok());
    for (int layer = 0; layer < kLayers; ++layer) {
      Elements c_kv(n * kLatentDim), k_pe(n * kRopeDim);
      for (std::size_t i = 0; i < c_kv.size(); ++i) c_kv[i] = static_cast<std::uint16_t>(first + i / kLatentDim);
      for (std::size_t i = 0; i < k_pe.size(); ++i) k_pe[i] = static_cast<std::uint16_t>(~(first + i / kRopeDim));
      const DeviceMemory c_kv_gpu = uploaded(c_kv), k_pe_gpu = uploaded(k_pe);
      const Status status = cache.write(layer, std::span(&id, 1), std::span(&n, 1),
                                        TensorView::contiguous(c_kv_gpu.data(), DType::bf16, {n, 1, kLatentDim}, kGpu),
                                        TensorView::contiguous(k_pe_gpu.data(), DType::bf16, {n, 1, kRopeDim}, kGpu));
      ASSERT_TRUE(status.ok()) << status.message();
      synchronize();
    }
  };
  const auto expect_token = [&](RequestId id, std::int64_t token, std::uint16_t number) {
    std::int32_t table[8], length = 0;
    ASSERT_TRUE(cache.tables(std::span(&id, 1), 8, table, std::span(&length, 1)).ok());
    for (int layer = 0; layer < kLayers; ++layer) {
      Elements row(kHeadDim);
      const auto* from = static_cast<const std::uint16_t*>((*cache.layer(layer)).data) +
                         (table[token / 32] * std::int64_t{32} + token % 32) * kHeadDim;
      FLASH_MLA_REQUIRE(cudaMemcpy(row.data(), from, kHeadDim * 2, cudaMemcpyDefault));
      EXPECT_EQ(std::count(row.begin(), row.begin() + kLatentDim, number), kLatentDim) << token;
      EXPECT_EQ(std::count(row.begin() + kLatentDim, row.end(), static_cast<std::uint16_t>(~number)), kRopeDim);
    }
  };
  const RequestId a = *cache.add();
  append(a, 40, 100);
  const RequestId b = *cache.fork(a);
  append(b, 2, 900);
  append(a, 2, 700);
  synchronize();
  for (int t = 0; t < 40; ++t) {
    expect_token(a, t, static_cast<std::uint16_t>(100 + t));
    expect_token(b, t, static_cast<std::uint16_t>(100 + t));
  }
  expect_token(a, 41, 701);
  expect_token(b, 41, 901);
}

}  // namespace
}  // namespace flash_mla
