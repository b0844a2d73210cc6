// A storage in which each token is one number, the same in every layer unless a test writes otherwise; its calls fail
// on demand, half done.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cache/page_storage.h"

namespace flash_mla::test {

class FakeStorage final : public PageStorage {
 public:
  explicit FakeStorage(const PagedKvCacheConfig& config)
      : config_(config),
        tokens_(config.num_layers,
                std::vector<std::int64_t>(std::int64_t{config.num_pages} * config.page_size, kNothing)) {}

  static constexpr std::int64_t kNothing = -1;

  // The next copy_pages() or append() with tokens fails, after half of its work.
  bool fail_next_copy = false;
  bool fail_next_append = false;
  std::int64_t pages_copied = 0;  // of one layer

  [[nodiscard]] std::int64_t token(std::int32_t layer, std::int64_t slot) const { return tokens_[layer][slot]; }

  Status copy_pages(std::span<const std::int64_t> pairs, Stream) noexcept override {
    for (auto& layer : tokens_) {
      for (std::size_t i = 0; i < pairs.size(); i += 2) {
        for (std::int64_t row = 0; row < config_.page_size; ++row) {
          layer[pairs[i + 1] * config_.page_size + row] = layer[pairs[i] * config_.page_size + row];
        }
      }
      if (fail_next_copy) return fail(&fail_next_copy);
    }
    pages_copied += static_cast<std::int64_t>(pairs.size()) / 2;
    return {};
  }

  Status append(std::int32_t layer, std::span<const std::int64_t> slots, const TensorView& c_kv, const TensorView&,
                Stream) noexcept override {
    if (c_kv.dtype != DType::i64) return Status(StatusCode::invalid_argument, "c_kv.dtype is not i64");
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (fail_next_append && i == slots.size() / 2) return fail(&fail_next_append);
      tokens_[layer][slots[i]] = static_cast<const std::int64_t*>(c_kv.data)[i * c_kv.strides[0]];
    }
    return {};
  }

  [[nodiscard]] TensorView layer(std::int32_t index) const noexcept override {
    return TensorView::contiguous(const_cast<std::int64_t*>(tokens_[index].data()), DType::i64,
                                  {config_.num_pages, config_.page_size, 1, 1});
  }

 private:
  static Status fail(bool* flag) {
    *flag = false;
    return Status(StatusCode::device_error, "the fake storage was told to fail");
  }

  PagedKvCacheConfig config_;
  std::vector<std::vector<std::int64_t>> tokens_;  // [layer][slot]
};

// A cache on a FakeStorage, which the cache owns.
struct FakeCache {
  FakeStorage* storage;
  PagedKvCache cache;

  static FakeCache make(const PagedKvCacheConfig& config) {
    auto storage = std::make_unique<FakeStorage>(config);
    FakeStorage* observer = storage.get();
    return {observer, PagedKvCacheAccess::make(config, std::move(storage))};
  }
};

// Numbers as the [n, 1, 1] rows that FakeStorage takes.
inline TensorView as_rows(std::vector<std::int64_t>& numbers) {
  return TensorView::contiguous(numbers.data(), DType::i64, {static_cast<std::int64_t>(numbers.size()), 1, 1});
}

}  // namespace flash_mla::test
