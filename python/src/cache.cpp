// PagedKvCache for Python: an object, and a function for each of its calls. Python calls without its global lock held,
// so each object has a lock of its own.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/memory.h>
#include <tvm/ffi/object.h>
#include <tvm/ffi/string.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "views.h"

namespace flash_mla::python {
namespace {

class CacheObject : public ffi::Object {
 public:
  explicit CacheObject(PagedKvCache value) : cache(std::move(value)) {}

  mutable std::mutex mutex;
  mutable PagedKvCache cache;
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("flash_mla.PagedKVCache", CacheObject, ffi::Object);
};

class CacheRef : public ffi::ObjectRef {
 public:
  explicit CacheRef(PagedKvCache cache) : CacheRef(ffi::make_object<CacheObject>(std::move(cache))) {}
  explicit CacheRef(ffi::ObjectPtr<CacheObject> object) : ObjectRef(std::move(object)) {}
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NOTNULLABLE(CacheRef, ffi::ObjectRef, CacheObject);
};

using Integers = ffi::Array<std::int64_t>;

std::vector<RequestId> requests_of(const Integers& ids) {
  std::vector<RequestId> requests;
  for (std::int64_t id : ids) requests.push_back(RequestId{id});
  return requests;
}

// What does not fit an int32 is refused by the library as too large or negative.
std::vector<std::int32_t> tokens_of(const Integers& counts, std::size_t requests) {
  if (counts.size() != requests) {
    raise_unless_ok(Status(StatusCode::invalid_argument, "num_tokens has " + std::to_string(counts.size()) +
                                                             " entries; expected one for each of the " +
                                                             std::to_string(requests) + " requests"));
  }
  using Limits = std::numeric_limits<std::int32_t>;
  std::vector<std::int32_t> tokens;
  for (std::int64_t count : counts) {
    tokens.push_back(static_cast<std::int32_t>(std::clamp<std::int64_t>(count, Limits::min(), Limits::max())));
  }
  return tokens;
}

// The elements of a contiguous host tensor of `count` elements.
template <class T>
std::span<T> elements_of(const char* name, const ffi::TensorView& tensor, DType dtype, std::int64_t count) {
  const TensorView view = view_of(name, tensor);
  const MemoryView memory = memory_of(name, tensor);
  if (view.dtype != dtype || view.device.type != DeviceType::cpu ||
      memory.bytes != count * static_cast<std::int64_t>(sizeof(T))) {
    raise_unless_ok(Status(StatusCode::invalid_argument, std::string(name) + " does not hold " + std::to_string(count) +
                                                             " elements of " + to_string(dtype) + " on the host"));
  }
  return {static_cast<T*>(memory.data), static_cast<std::size_t>(count)};
}

CacheRef cache_create(std::int64_t device_type, std::int64_t device_index, std::int64_t dtype, std::int32_t num_layers,
                      std::int32_t num_pages, std::int32_t page_size, std::int32_t num_heads_kv) {
  return CacheRef(value_or_raise(PagedKvCache::create({.device = device_of(device_type, device_index),
                                                       .dtype = static_cast<DType>(dtype),
                                                       .num_layers = num_layers,
                                                       .num_pages = num_pages,
                                                       .page_size = page_size,
                                                       .num_heads_kv = num_heads_kv})));
}

std::int64_t cache_add(const CacheRef& self) {
  const std::scoped_lock lock(self->mutex);
  return static_cast<std::int64_t>(value_or_raise(self->cache.add()));
}

std::int64_t cache_fork(const CacheRef& self, std::int64_t parent) {
  const std::scoped_lock lock(self->mutex);
  return static_cast<std::int64_t>(value_or_raise(self->cache.fork(RequestId{parent})));
}

void cache_remove(const CacheRef& self, std::int64_t request) {
  const std::scoped_lock lock(self->mutex);
  raise_unless_ok(self->cache.remove(RequestId{request}));
}

void cache_truncate(const CacheRef& self, std::int64_t request, std::int64_t length) {
  const std::scoped_lock lock(self->mutex);
  raise_unless_ok(self->cache.truncate(RequestId{request}, length));
}

Stream stream_on(const CacheRef& self, std::int64_t stream) { return stream_of(stream, self->cache.config().device); }

void cache_grow(const CacheRef& self, const Integers& ids, const Integers& counts, std::int64_t stream) {
  const std::vector<RequestId> requests = requests_of(ids);
  const std::scoped_lock lock(self->mutex);
  raise_unless_ok(self->cache.grow(requests, tokens_of(counts, requests.size()), stream_on(self, stream)));
}

void cache_write(const CacheRef& self, std::int32_t layer, const Integers& ids, const Integers& counts,
                 const ffi::TensorView& c_kv, const ffi::TensorView& k_pe, std::int64_t stream) {
  const std::vector<RequestId> requests = requests_of(ids);
  const std::scoped_lock lock(self->mutex);
  raise_unless_ok(self->cache.write(layer, requests, tokens_of(counts, requests.size()), view_of("c_kv", c_kv),
                                    view_of("k_pe", k_pe), stream_on(self, stream)));
}

void cache_append(const CacheRef& self, const Integers& ids, const Integers& counts, const ffi::TensorView& c_kv,
                  const ffi::TensorView& k_pe, std::int64_t stream) {
  const std::vector<RequestId> requests = requests_of(ids);
  const std::scoped_lock lock(self->mutex);
  raise_unless_ok(self->cache.append(requests, tokens_of(counts, requests.size()), view_of("c_kv", c_kv),
                                     view_of("k_pe", k_pe), stream_on(self, stream)));
}

void cache_slots(const CacheRef& self, const Integers& ids, const Integers& counts, const ffi::TensorView& out) {
  const std::vector<RequestId> requests = requests_of(ids);
  const std::vector<std::int32_t> tokens = tokens_of(counts, requests.size());
  const std::span<std::int64_t> slots = elements_of<std::int64_t>("slots", out, DType::i64, out.numel());
  const std::scoped_lock lock(self->mutex);
  raise_unless_ok(self->cache.slots(requests, tokens, slots));
}

void cache_tables(const CacheRef& self, const Integers& ids, std::int64_t columns, const ffi::TensorView& block_table,
                  const ffi::TensorView& cache_seqlens) {
  const std::vector<RequestId> requests = requests_of(ids);
  const auto n = static_cast<std::int64_t>(requests.size());
  const std::span<std::int32_t> table =
      elements_of<std::int32_t>("block_table", block_table, DType::i32, n * std::max<std::int64_t>(columns, 0));
  const std::span<std::int32_t> lengths = elements_of<std::int32_t>("cache_seqlens", cache_seqlens, DType::i32, n);
  const std::scoped_lock lock(self->mutex);
  raise_unless_ok(self->cache.tables(requests, columns, table, lengths));
}

std::int64_t cache_max_pages(const CacheRef& self, const Integers& ids) {
  const std::scoped_lock lock(self->mutex);
  return value_or_raise(self->cache.max_pages(requests_of(ids)));
}

std::int64_t cache_length(const CacheRef& self, std::int64_t request) {
  const std::scoped_lock lock(self->mutex);
  return value_or_raise(self->cache.length(RequestId{request}));
}

std::int64_t cache_free_pages(const CacheRef& self) {
  const std::scoped_lock lock(self->mutex);
  return self->cache.free_pages();
}

std::int64_t cache_pages_needed(const CacheRef& self, const Integers& ids, const Integers& counts) {
  const std::vector<RequestId> requests = requests_of(ids);
  const std::scoped_lock lock(self->mutex);
  return value_or_raise(self->cache.pages_needed(requests, tokens_of(counts, requests.size())));
}

ffi::Map<ffi::String, ffi::Any> cache_stats(const CacheRef& self) {
  const std::scoped_lock lock(self->mutex);
  const PagedKvCacheStats stats = self->cache.stats();
  return {{"pages_total", stats.pages_total},
          {"pages_in_use", stats.pages_in_use},
          {"pages_shared", stats.pages_shared},
          {"requests", stats.requests},
          {"tokens", stats.tokens},
          {"tokens_stored", stats.tokens_stored},
          {"internal_fragmentation", stats.internal_fragmentation}};
}

// One layer's memory as a tensor that keeps the cache alive. `as_bits`: bf16 as uint16, for frameworks without bf16.
struct LayerOf {
  CacheRef cache;
  void AllocData(DLTensor* tensor, void* data) const { tensor->data = data; }
  void FreeData(DLTensor*) const {}
};

ffi::Tensor cache_layer(const CacheRef& self, std::int32_t layer, bool as_bits) {
  const std::scoped_lock lock(self->mutex);
  const TensorView view = value_or_raise(self->cache.layer(layer));
  const DLDataType dtype =
      as_bits && view.dtype == DType::bf16 ? DLDataType{kDLUInt, 16, 1} : dlpack_dtype_of(view.dtype);
  const std::vector<std::int64_t> shape(view.shape.begin(), view.shape.begin() + view.rank);
  const ffi::ShapeView sizes(shape.data(), shape.size());
  return ffi::Tensor::FromNDAlloc(LayerOf{self}, sizes, dtype, dlpack_device_of(view.device), view.data);
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_create, cache_create)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_add, cache_add)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_fork, cache_fork)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_remove, cache_remove)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_truncate, cache_truncate)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_grow, cache_grow)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_write, cache_write)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_append, cache_append)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_slots, cache_slots)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_tables, cache_tables)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_max_pages, cache_max_pages)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_length, cache_length)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_free_pages, cache_free_pages)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_pages_needed, cache_pages_needed)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_stats, cache_stats)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_layer, cache_layer)

}  // namespace flash_mla::python
