// Storage of a PagedKvCache in a backend's memory. Where that is not the host's, slots and page pairs travel through a
// small buffer on the device, in stream order: hence the rule that a cache's streams are ordered by its caller.
#include <algorithm>
#include <vector>

#include "cache/page_storage.h"
#include "core/error.h"

namespace flash_mla {
namespace {

class BackendStorage final : public PageStorage {
 public:
  BackendStorage(const PagedKvCacheConfig& config, const Backend& backend) : config_(config), backend_(backend) {
    if (config.device.type != DeviceType::cpu) uploaded_.reserve(kMaxIndices);
  }
  BackendStorage(const BackendStorage&) = delete;
  BackendStorage& operator=(const BackendStorage&) = delete;
  ~BackendStorage() override {
    if (pages_) backend_.deallocate(pages_, config_.device);
    if (indices_) backend_.deallocate(indices_, config_.device);
  }

  Status allocate(std::int64_t layer_bytes) noexcept {
    layer_bytes_ = layer_bytes;
    const Result<void*> pages = backend_.allocate(layer_bytes * config_.num_layers, config_.device);
    if (!pages.ok()) return pages.status();
    pages_ = *pages;
    if (config_.device.type == DeviceType::cpu) return {};
    const Result<void*> indices = backend_.allocate(kMaxIndices * sizeof(std::int64_t), config_.device);
    if (!indices.ok()) return indices.status();
    indices_ = *indices;
    return {};
  }

  Status copy_pages(std::span<const std::int64_t> pairs, Stream stream) noexcept override {
    while (!pairs.empty()) {
      const auto run = pairs.first(std::min<std::size_t>(pairs.size(), kMaxIndices));
      TensorView view;
      if (Status status = upload(run, &view, stream); !status.ok()) return status;
      for (std::int32_t i = 0; i < config_.num_layers; ++i) {
        const CopyPagesProblem problem = copies_in(layer(i), view);
        if (Status status = backend_.copy_pages(problem, config_.device, stream); !status.ok()) return status;
      }
      pairs = pairs.subspan(run.size());
    }
    return {};
  }

  Status append(std::int32_t layer_index, std::span<const std::int64_t> slots, const TensorView& c_kv,
                const TensorView& k_pe, Stream stream) noexcept override {
    AppendArgs args{.c_kv = c_kv, .k_pe = k_pe, .kv_cache = layer(layer_index)};
    if (Status status = upload(slots, &args.slot_mapping, stream); !status.ok()) return status;
    return append_kv(args, stream);
  }

  [[nodiscard]] TensorView layer(std::int32_t index) const noexcept override {
    return TensorView::contiguous(static_cast<std::byte*>(pages_) + index * layer_bytes_, config_.dtype,
                                  {config_.num_pages, config_.page_size, config_.num_heads_kv, kHeadDim},
                                  config_.device);
  }

 private:
  // Valid by construction, so it needs none of flash_mla::copy_pages' checks.
  [[nodiscard]] CopyPagesProblem copies_in(const TensorView& layer, const TensorView& pairs) const noexcept {
    return {.pages = {layer.data, layer.strides[0], layer.strides[1], layer.strides[2]},
            .element_bytes = size_in_bytes(config_.dtype),
            .page_size = config_.page_size,
            .num_heads_kv = config_.num_heads_kv,
            .columns = kHeadDim,
            .num_pages = config_.num_pages,
            .pairs = pairs.shape[0] / 2,
            .page_pairs = static_cast<const std::int64_t*>(pairs.data)};
  }

  // At most kMaxIndices numbers of host memory as a tensor [n] on the device. What lies there already is not sent
  // again: a step writes the same slots in every layer.
  Status upload(std::span<const std::int64_t> indices, TensorView* view, Stream stream) noexcept {
    void* data = const_cast<std::int64_t*>(indices.data());
    if (indices_) {
      if (!std::equal(indices.begin(), indices.end(), uploaded_.begin(), uploaded_.end())) {
        uploaded_.clear();
        const auto bytes = static_cast<std::int64_t>(indices.size_bytes());
        if (Status status = backend_.copy_to_device(indices_, data, bytes, config_.device, stream); !status.ok()) {
          return status;
        }
        uploaded_.assign(indices.begin(), indices.end());
      }
      data = indices_;
    }
    *view = TensorView::contiguous(data, DType::i64, {static_cast<std::int64_t>(indices.size())}, config_.device);
    return {};
  }

  PagedKvCacheConfig config_;
  const Backend& backend_;
  std::int64_t layer_bytes_ = 0;
  void* pages_ = nullptr;
  void* indices_ = nullptr;             // i64 [kMaxIndices] on a device that has memory of its own
  std::vector<std::int64_t> uploaded_;  // what lies there
};

}  // namespace

Result<std::unique_ptr<PageStorage>> make_backend_storage(const PagedKvCacheConfig& config, const Backend& backend) {
  std::int64_t layer_bytes = kHeadDim * size_in_bytes(config.dtype), bytes = 0;
  if (__builtin_mul_overflow(layer_bytes, config.num_heads_kv, &layer_bytes) ||
      __builtin_mul_overflow(layer_bytes, config.page_size, &layer_bytes) ||
      __builtin_mul_overflow(layer_bytes, config.num_pages, &layer_bytes) ||
      __builtin_mul_overflow(layer_bytes, config.num_layers, &bytes)) {
    return make_error(StatusCode::out_of_memory, "%d layers x %d pages x %d tokens x %d kv heads is over 2^63 bytes",
                      config.num_layers, config.num_pages, config.page_size, config.num_heads_kv);
  }
  auto storage = std::make_unique<BackendStorage>(config, backend);
  if (Status status = storage->allocate(layer_bytes); !status.ok()) return status;
  return std::unique_ptr<PageStorage>(std::move(storage));
}

}  // namespace flash_mla
