// The cache on the CPU's own memory: what create() accepts, and that tokens land where block tables say.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "flash_mla/paged_kv_cache.h"

// Sanitizers end the program when an allocation is too large, unless told to let it fail as it would without them.
extern "C" [[gnu::visibility("default")]] const char* __asan_default_options() { return "allocator_may_return_null=1"; }
extern "C" [[gnu::visibility("default")]] const char* __tsan_default_options() { return "allocator_may_return_null=1"; }

namespace flash_mla {
namespace {

// Element `column` of a token: [c_kv | k_pe], every token, layer, head and column another number that bf16 can hold.
std::uint16_t element(std::int64_t token, int layer, int head, int column) {
  return static_cast<std::uint16_t>(token * 7919 + layer * 4001 + head * 577 + column);
}

struct Rows {
  std::vector<std::uint16_t> c_kv, k_pe;
  TensorView c_kv_view, k_pe_view;

  // Tokens first, first + 1, ...; rows are padded by `gap` elements, as in a view into a wider tensor.
  Rows(std::int64_t first, std::int64_t n, int layer, int heads, int gap) {
    const std::int64_t c_stride = heads * kLatentDim + gap, k_stride = heads * kRopeDim + gap;
    c_kv.resize(n * c_stride), k_pe.resize(n * k_stride);
    for (std::int64_t t = 0; t < n; ++t) {
      for (int h = 0; h < heads; ++h) {
        for (int c = 0; c < kHeadDim; ++c) {
          (c < kLatentDim ? c_kv[t * c_stride + h * kLatentDim + c]
                          : k_pe[t * k_stride + h * kRopeDim + c - kLatentDim]) = element(first + t, layer, h, c);
        }
      }
    }
    c_kv_view = TensorView::contiguous(c_kv.data(), DType::bf16, {n, heads, kLatentDim});
    k_pe_view = TensorView::contiguous(k_pe.data(), DType::bf16, {n, heads, kRopeDim});
    c_kv_view.strides[0] = c_stride, k_pe_view.strides[0] = k_stride;
  }
};

class StorageTest : public ::testing::Test {
 protected:
  static constexpr PagedKvCacheConfig kConfig = {.num_layers = 2, .num_pages = 6, .page_size = 32, .num_heads_kv = 2};

  void append(RequestId id, std::int32_t n, std::int64_t first) {
    ASSERT_TRUE(cache.grow(std::span(&id, 1), std::span(&n, 1)).ok());
    for (int layer = 0; layer < kConfig.num_layers; ++layer) {
      const Rows rows(first, n, layer, kConfig.num_heads_kv, 24);
      const Status status = cache.write(layer, std::span(&id, 1), std::span(&n, 1), rows.c_kv_view, rows.k_pe_view);
      ASSERT_TRUE(status.ok()) << status.message();
    }
  }

  // Token t of the request is `first` + t, in every layer.
  void expect_tokens(RequestId id, std::int64_t begin, std::int64_t end, std::int64_t first) {
    std::int32_t table[6], length = 0;
    ASSERT_TRUE(cache.tables(std::span(&id, 1), 6, table, std::span(&length, 1)).ok());
    ASSERT_GE(length, end);
    for (int layer = 0; layer < kConfig.num_layers; ++layer) {
      const TensorView view = *cache.layer(layer);
      const auto* data = static_cast<const std::uint16_t*>(view.data);
      for (std::int64_t t = begin; t < end; ++t) {
        for (int h = 0; h < kConfig.num_heads_kv; ++h) {
          const auto* row = data + table[t / 32] * view.strides[0] + t % 32 * view.strides[1] + h * view.strides[2];
          for (int c = 0; c < kHeadDim; ++c) {
            ASSERT_EQ(row[c], element(first + t, layer, h, c))
                << "token " << t << " layer " << layer << " column " << c;
          }
        }
      }
    }
  }

  PagedKvCache cache = *PagedKvCache::create(kConfig);
};

TEST_F(StorageTest, LayersAreDisjointViews) {
  const TensorView first = *cache.layer(0), second = *cache.layer(1);
  EXPECT_EQ(first.rank, 4);
  EXPECT_EQ(first.shape, (std::array<std::int64_t, 5>{6, 32, 2, kHeadDim}));
  EXPECT_EQ(static_cast<std::byte*>(second.data) - static_cast<std::byte*>(first.data), 6 * 32 * 2 * kHeadDim * 2);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first.data) % 64, 0u);
  EXPECT_EQ(first.dtype, DType::bf16);
}

TEST_F(StorageTest, TokensLandWhereTheTablesSay) {
  const RequestId a = *cache.add(), b = *cache.add();
  append(a, 40, 1000);
  append(b, 3, 2000);
  append(a, 30, 1040);
  append(b, 31, 2003);
  expect_tokens(a, 0, 70, 1000);
  expect_tokens(b, 0, 34, 2000);
}

TEST_F(StorageTest, CopyOnWriteCopiesEveryLayer) {
  const RequestId a = *cache.add();
  append(a, 40, 1000);
  const RequestId b = *cache.fork(a);
  append(b, 2, 3000);
  append(a, 2, 1040);
  expect_tokens(a, 0, 42, 1000);
  expect_tokens(b, 0, 40, 1000);
  expect_tokens(b, 40, 42, 3000 - 40);
}

TEST_F(StorageTest, WrongTensorsAreNamed) {
  const RequestId a = *cache.add();
  const std::int32_t one = 1;
  ASSERT_TRUE(cache.grow(std::span(&a, 1), std::span(&one, 1)).ok());
  Rows rows(0, 1, 0, 2, 0);
  const auto expect = [&](const char* name, const TensorView& c_kv, const TensorView& k_pe) {
    const Status status = cache.write(0, std::span(&a, 1), std::span(&one, 1), c_kv, k_pe);
    EXPECT_EQ(status.code(), StatusCode::invalid_argument);
    EXPECT_NE(std::string(status.message()).find(name), std::string::npos) << status.message();
  };
  TensorView bad = rows.c_kv_view;
  bad.dtype = DType::f16;
  expect("c_kv", bad, rows.k_pe_view);
  bad = rows.c_kv_view;
  bad.shape[1] = 1;
  expect("c_kv", bad, rows.k_pe_view);
  bad = rows.k_pe_view;
  bad.shape[2] = 63;
  expect("k_pe", rows.c_kv_view, bad);
}

TEST(StorageCreate, RefusesBadConfigurationsByName) {
  const auto expect = [](const char* part, const PagedKvCacheConfig& config) {
    const Result<PagedKvCache> cache = PagedKvCache::create(config);
    ASSERT_FALSE(cache.ok()) << part;
    EXPECT_NE(std::string(cache.status().message()).find(part), std::string::npos) << cache.status().message();
  };
  expect("num_pages is 0", {});
  expect("num_pages is -1", {.num_pages = -1});
  expect("num_layers is 0", {.num_layers = 0, .num_pages = 1});
  expect("num_heads_kv is 0", {.num_pages = 1, .num_heads_kv = 0});
  for (int page_size : {-64, 0, 1, 8, 48, 63, 100}) {
    expect(("page_size is " + std::to_string(page_size)).c_str(), {.num_pages = 1, .page_size = page_size});
  }
  expect("dtype is", {.dtype = DType::i32, .num_pages = 1});
  expect("dtype is", {.dtype = static_cast<DType>(99), .num_pages = 1});
  expect("dtype is", {.device = {DeviceType::cuda, 0}, .dtype = DType::f32, .num_pages = 1});
  expect("device.type is 7", {.device = {static_cast<DeviceType>(7), 0}, .num_pages = 1});
  expect("device.index is 1", {.device = {DeviceType::cpu, 1}, .num_pages = 1});
  expect("2147483647 pages", {.num_layers = INT32_MAX, .num_pages = INT32_MAX, .page_size = 64, .num_heads_kv = 99});
}

TEST(StorageCreate, SaysWhenMemoryIsShort) {
  const Result<PagedKvCache> cache = PagedKvCache::create({.num_layers = 1 << 20, .num_pages = 1 << 20});
  ASSERT_FALSE(cache.ok());
  EXPECT_EQ(cache.status().code(), StatusCode::out_of_memory) << cache.status().message();
}

TEST(StorageCreate, ServesEveryTypeAndPageSize) {
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (int page_size : {16, 32, 64, 128, 192}) {
      EXPECT_TRUE(PagedKvCache::create({.dtype = dtype, .num_pages = 2, .page_size = page_size}).ok());
    }
  }
}

}  // namespace
}  // namespace flash_mla
