// The public cache: bookkeeping (PageBook) and storage (PageStorage) put together, behind a border that no exception
// crosses. Where both take part, storage goes first and bookkeeping commits last, so a failure changes nothing.
#include "flash_mla/paged_kv_cache.h"

#include <algorithm>
#include <array>
#include <new>
#include <stdexcept>
#include <utility>

#include "cache/page_book.h"
#include "cache/page_storage.h"
#include "core/error.h"

namespace flash_mla {

namespace {

Status moved_from() { return {StatusCode::invalid_argument, "the PagedKvCache was moved from"}; }

// Runs f, which may throw std::bad_alloc; R is Status or a Result.
template <class R, class F>
R guarded(const void* impl, F&& f) noexcept {
  if (!impl) return moved_from();
  try {
    return f();
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {
  }
  return Status(StatusCode::out_of_memory, "the host is out of memory for the cache's bookkeeping");
}

Status check_config(const PagedKvCacheConfig& c) {
  const auto bad = [](const char* field, long long value, const char* rule) {
    return make_error(StatusCode::invalid_argument, "%s is %lld; it must be %s", field, value, rule);
  };
  const auto device = static_cast<int>(c.device.type);
  if (c.device.type != DeviceType::cpu && c.device.type != DeviceType::cuda) {
    return bad("device.type", device, "cpu or cuda");
  }
  if (c.device.index < 0 || (c.device.type == DeviceType::cpu && c.device.index != 0)) {
    return bad("device.index", c.device.index, "an ordinal among the devices of its type, 0 on the CPU");
  }
  const bool on_cpu = c.device.type == DeviceType::cpu;
  if (c.dtype != DType::bf16 && c.dtype != DType::f16 && !(on_cpu && c.dtype == DType::f32)) {
    return make_error(StatusCode::invalid_argument, "dtype is %s; it must be bf16, f16 or, on the CPU only, f32",
                      to_string(c.dtype));
  }
  if (c.num_layers < 1) return bad("num_layers", c.num_layers, ">= 1");
  if (c.num_pages < 1) return bad("num_pages", c.num_pages, ">= 1");
  if (c.page_size < 1 || (c.page_size != 16 && c.page_size != 32 && c.page_size % 64 != 0)) {
    return bad("page_size", c.page_size, "16, 32 or a multiple of 64");
  }
  if (c.num_heads_kv < 1) return bad("num_heads_kv", c.num_heads_kv, ">= 1");
  return {};
}

const Backend* backend_for(Device device) {
  if (device.type == DeviceType::cpu) return cpu_backend();
#if FLASH_MLA_WITH_CUDA
  return cuda_backend();
#else
  return nullptr;
#endif
}

// The rows [first, first + n) of a tensor whose first dimension counts tokens.
TensorView rows(TensorView view, std::int64_t first, std::int64_t n) {
  view.data = static_cast<std::byte*>(view.data) + first * view.strides[0] * size_in_bytes(view.dtype);
  view.shape[0] = n;
  return view;
}

Status check_rows(const char* name, const TensorView& view, std::int64_t tokens) {
  if (view.rank != 3 || view.shape[0] != tokens) {
    return make_error(StatusCode::invalid_argument, "%s has rank %d and %lld rows; it must be [%lld, h_kv, d]", name,
                      view.rank, static_cast<long long>(view.rank > 0 ? view.shape[0] : 0),
                      static_cast<long long>(tokens));
  }
  if (!view.data && tokens > 0) return make_error(StatusCode::invalid_argument, "%s.data is null", name);
  std::int64_t bytes = size_in_bytes(view.dtype);  // so that rows() cannot overflow
  if (__builtin_mul_overflow(bytes, tokens, &bytes) || __builtin_mul_overflow(bytes, view.strides[0], &bytes)) {
    return make_error(StatusCode::invalid_argument, "%s.strides[0] is %lld; %lld rows would reach past 2^63 bytes",
                      name, static_cast<long long>(view.strides[0]), static_cast<long long>(tokens));
  }
  return {};
}

}  // namespace

struct PagedKvCache::Impl {
  Impl(const PagedKvCacheConfig& c, std::unique_ptr<PageStorage> s)
      : config(c), book(c.num_pages, c.page_size), storage(std::move(s)) {}

  [[nodiscard]] Status check_layer(std::int32_t layer) const noexcept {
    if (layer >= 0 && layer < config.num_layers) return {};
    return make_error(StatusCode::invalid_argument, "layer is %d; the cache has %d layers", layer, config.num_layers);
  }

  // Second half of growing: the copies, then the books.
  Status copy_and_commit(Stream stream) noexcept {
    if (!book.page_copies().empty()) {
      if (Status status = storage->copy_pages(book.page_copies(), stream); !status.ok()) return status;
    }
    book.commit_growth();
    return {};
  }

  // The slots of the book's current call get the rows of c_kv and k_pe.
  Status write_rows(std::int32_t layer, std::int64_t tokens, const TensorView& c_kv, const TensorView& k_pe,
                    Stream stream) noexcept {
    SlotCursor cursor;
    for (std::int64_t first = 0; first < tokens; first += kMaxIndices) {
      const std::int64_t n = std::min(kMaxIndices, tokens - first);
      const std::span<std::int64_t> run = std::span(slots).first(n);
      book.next_slots(cursor, run);
      const Status status = storage->append(layer, run, rows(c_kv, first, n), rows(k_pe, first, n), stream);
      if (!status.ok()) return status;
    }
    return {};
  }

  PagedKvCacheConfig config;
  PageBook book;
  std::unique_ptr<PageStorage> storage;
  std::array<std::int64_t, kMaxIndices> slots;  // of the write under way
};

PagedKvCache PagedKvCacheAccess::make(const PagedKvCacheConfig& config, std::unique_ptr<PageStorage> storage) {
  return PagedKvCache(std::make_unique<PagedKvCache::Impl>(config, std::move(storage)));
}

Result<PagedKvCache> PagedKvCache::create(const PagedKvCacheConfig& config) noexcept {
  return guarded<Result<PagedKvCache>>(&config, [&]() -> Result<PagedKvCache> {
    if (Status status = check_config(config); !status.ok()) return status;
    const Backend* backend = backend_for(config.device);
    if (!backend) return Status(StatusCode::unsupported, "device is cuda, but this library was built without CUDA");
    Result<std::unique_ptr<PageStorage>> storage = make_backend_storage(config, *backend);
    if (!storage.ok()) return storage.status();
    return PagedKvCacheAccess::make(config, std::move(*storage));
  });
}

PagedKvCache::PagedKvCache(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
PagedKvCache::PagedKvCache(PagedKvCache&&) noexcept = default;
PagedKvCache& PagedKvCache::operator=(PagedKvCache&&) noexcept = default;
PagedKvCache::~PagedKvCache() = default;

const PagedKvCacheConfig& PagedKvCache::config() const noexcept {
  static constexpr PagedKvCacheConfig kNone = {};
  return impl_ ? impl_->config : kNone;
}

Result<RequestId> PagedKvCache::add() noexcept {
  return guarded<Result<RequestId>>(impl_.get(), [&] { return impl_->book.add(); });
}

Result<RequestId> PagedKvCache::fork(RequestId parent) noexcept {
  return guarded<Result<RequestId>>(impl_.get(), [&] { return impl_->book.fork(parent); });
}

Status PagedKvCache::remove(RequestId request) noexcept {
  return guarded<Status>(impl_.get(), [&] { return impl_->book.remove(request); });
}

Status PagedKvCache::truncate(RequestId request, std::int64_t length) noexcept {
  return guarded<Status>(impl_.get(), [&] { return impl_->book.truncate(request, length); });
}

Status PagedKvCache::grow(std::span<const RequestId> requests, std::span<const std::int32_t> num_tokens,
                          Stream stream) noexcept {
  return guarded<Status>(impl_.get(), [&]() -> Status {
    const Result<std::int64_t> tokens = impl_->book.prepare_growth(requests, num_tokens);
    return tokens.ok() ? impl_->copy_and_commit(stream) : tokens.status();
  });
}

Status PagedKvCache::write(std::int32_t layer, std::span<const RequestId> requests,
                           std::span<const std::int32_t> num_tokens, const TensorView& c_kv, const TensorView& k_pe,
                           Stream stream) noexcept {
  return guarded<Status>(impl_.get(), [&]() -> Status {
    if (Status status = impl_->check_layer(layer); !status.ok()) return status;
    const Result<std::int64_t> tokens = impl_->book.begin_slots(requests, num_tokens, /*writable=*/true);
    if (!tokens.ok()) return tokens.status();
    if (Status status = check_rows("c_kv", c_kv, *tokens); !status.ok()) return status;
    if (Status status = check_rows("k_pe", k_pe, *tokens); !status.ok()) return status;
    return impl_->write_rows(layer, *tokens, c_kv, k_pe, stream);
  });
}

Status PagedKvCache::append(std::span<const RequestId> requests, std::span<const std::int32_t> num_tokens,
                            const TensorView& c_kv, const TensorView& k_pe, Stream stream) noexcept {
  return guarded<Status>(impl_.get(), [&]() -> Status {
    if (impl_->config.num_layers != 1) {
      return make_error(StatusCode::invalid_argument,
                        "num_layers is %d; append() serves caches of one layer, others call grow() and write()",
                        impl_->config.num_layers);
    }
    const Result<std::int64_t> tokens = impl_->book.prepare_growth(requests, num_tokens);
    if (!tokens.ok()) return tokens.status();
    if (Status status = check_rows("c_kv", c_kv, *tokens); !status.ok()) return status;
    if (Status status = check_rows("k_pe", k_pe, *tokens); !status.ok()) return status;
    // Without tokens nothing is written, but the tensors are checked: so bad ones are found before anything changes.
    Status status = impl_->storage->append(0, {}, rows(c_kv, 0, 0), rows(k_pe, 0, 0), stream);
    if (!status.ok()) return status;
    if (status = impl_->copy_and_commit(stream); !status.ok()) return status;
    status = impl_->write_rows(0, *tokens, c_kv, k_pe, stream);
    if (!status.ok()) impl_->book.retract_growth();
    return status;
  });
}

Status PagedKvCache::slots(std::span<const RequestId> requests, std::span<const std::int32_t> num_tokens,
                           std::span<std::int64_t> out) const noexcept {
  return guarded<Status>(impl_.get(), [&]() -> Status {
    const Result<std::int64_t> tokens = impl_->book.begin_slots(requests, num_tokens, /*writable=*/false);
    if (!tokens.ok()) return tokens.status();
    if (static_cast<std::int64_t>(out.size()) != *tokens) {
      return make_error(StatusCode::invalid_argument, "out has %zu entries, but num_tokens adds up to %lld", out.size(),
                        static_cast<long long>(*tokens));
    }
    SlotCursor cursor;
    impl_->book.next_slots(cursor, out);
    return {};
  });
}

Status PagedKvCache::tables(std::span<const RequestId> requests, std::int64_t columns,
                            std::span<std::int32_t> block_table, std::span<std::int32_t> cache_seqlens) const noexcept {
  return guarded<Status>(impl_.get(),
                         [&] { return impl_->book.tables(requests, columns, block_table, cache_seqlens); });
}

Result<std::int64_t> PagedKvCache::max_pages(std::span<const RequestId> requests) const noexcept {
  return guarded<Result<std::int64_t>>(impl_.get(), [&] { return impl_->book.max_pages(requests); });
}

Result<std::int64_t> PagedKvCache::length(RequestId request) const noexcept {
  return guarded<Result<std::int64_t>>(impl_.get(), [&] { return impl_->book.length(request); });
}

std::int32_t PagedKvCache::free_pages() const noexcept { return impl_ ? impl_->book.pool().num_free() : 0; }

Result<std::int64_t> PagedKvCache::pages_needed(std::span<const RequestId> requests,
                                                std::span<const std::int32_t> num_tokens) const noexcept {
  return guarded<Result<std::int64_t>>(impl_.get(), [&] { return impl_->book.pages_needed(requests, num_tokens); });
}

PagedKvCacheStats PagedKvCache::stats() const noexcept { return impl_ ? impl_->book.stats() : PagedKvCacheStats{}; }

Result<TensorView> PagedKvCache::layer(std::int32_t layer) const noexcept {
  return guarded<Result<TensorView>>(impl_.get(), [&]() -> Result<TensorView> {
    if (Status status = impl_->check_layer(layer); !status.ok()) return status;
    return impl_->storage->layer(layer);
  });
}

}  // namespace flash_mla
