// merge, append_kv, copy_pages and what the library says of itself, for Python.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>

#include "views.h"

namespace flash_mla::python {
namespace {

using Facts = ffi::Map<ffi::String, ffi::Any>;

void run_merge(const ffi::TensorView& partial_out, const ffi::TensorView& partial_lse, const ffi::TensorView& out,
               const ffi::TensorView& lse, std::int64_t stream) {
  const MergeArgs args = {.partial_out = view_of("partial_out", partial_out),
                          .partial_lse = view_of("partial_lse", partial_lse),
                          .out = view_of("out", out),
                          .lse = view_of("lse", lse)};
  raise_unless_ok(merge(args, stream_of(stream, args.out.device)));
}

void run_append_kv(const ffi::TensorView& c_kv, const ffi::TensorView& k_pe, const ffi::TensorView& kv_cache,
                   const OptionalTensor& k_rope_cache, const ffi::TensorView& slot_mapping, std::int64_t stream) {
  const AppendArgs args = {.c_kv = view_of("c_kv", c_kv),
                           .k_pe = view_of("k_pe", k_pe),
                           .kv_cache = view_of("kv_cache", kv_cache),
                           .k_rope_cache = view_of("k_rope_cache", k_rope_cache),
                           .slot_mapping = view_of("slot_mapping", slot_mapping)};
  raise_unless_ok(append_kv(args, stream_of(stream, args.kv_cache.device)));
}

void run_copy_pages(const ffi::TensorView& cache, const ffi::TensorView& page_pairs, std::int64_t stream) {
  const TensorView view = view_of("cache", cache);
  raise_unless_ok(copy_pages(view, view_of("page_pairs", page_pairs), stream_of(stream, view.device)));
}

ffi::Array<Facts> describe_backends() {
  ffi::Array<Facts> all;
  for (const BackendInfo& info : backends()) {
    all.push_back(Facts{{"name", ffi::String(info.name)},
                        {"available", info.available},
                        {"reason", ffi::String(info.reason)},
                        {"device_count", info.device_count}});
  }
  return all;
}

Facts describe_device(std::int64_t device_type, std::int64_t device_index) {
  const DeviceInfo info = value_or_raise(device_info(device_of(device_type, device_index)));
  return Facts{{"name", ffi::String(info.name)},
               {"instruction_set", ffi::String(info.instruction_set)},
               {"workers", info.workers},
               {"memory_bytes", info.memory_bytes},
               {"l2_bytes", info.l2_bytes}};
}

// Python's tensors of tvm-ffi before 0.1.15 do not tell it.
std::int64_t address_of(const ffi::TensorView& tensor) {
  return reinterpret_cast<std::intptr_t>(tensor.data_ptr()) + static_cast<std::int64_t>(tensor.byte_offset());
}

ffi::String version_text() { return version(); }

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(merge, run_merge)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(append_kv, run_append_kv)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(copy_pages, run_copy_pages)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(backends, describe_backends)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(device_info, describe_device)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(address_of, address_of)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(version, version_text)

}  // namespace flash_mla::python
