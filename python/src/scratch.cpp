#include "scratch.h"

#include <tvm/ffi/function.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "views.h"

namespace flash_mla::python {
namespace {

std::atomic<bool> interpreter_ends = false;

// A framework that is being shut down is told of nothing: what threads have kept goes with the process.
void leave_scratch_behind() { interpreter_ends = true; }

void raise_out_of_memory(const char* message) { raise_unless_ok(Status(StatusCode::out_of_memory, message)); }

struct Kept {
  Device device;
  void* stream;
  Lent memory;
};

}  // namespace

MemoryView scratch_of_this_thread(std::int64_t bytes) {
  constexpr std::int64_t kAlignment_bytes = 128;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  thread_local std::unique_ptr<void, Free> memory;
  thread_local std::int64_t size_bytes = 0;
  if (size_bytes < bytes) {
    memory.reset();
    size_bytes = 0;
    const std::int64_t rounded = (bytes + kAlignment_bytes - 1) / kAlignment_bytes * kAlignment_bytes;
    memory.reset(std::aligned_alloc(kAlignment_bytes, static_cast<std::size_t>(rounded)));
    if (!memory) raise_out_of_memory("the host has no memory for the scratch of a decode");
    size_bytes = rounded;
  }
  return {memory.get(), size_bytes, {}};
}

Lent::Lent(const DLPackExchangeAPI& framework, std::int64_t bytes, Device device) {
  DLTensor prototype = {};
  prototype.device = dlpack_device_of(device);
  prototype.ndim = 1;
  prototype.dtype = {kDLUInt, 8, 1};
  prototype.shape = &bytes;
  const auto ignore = [](void*, const char*, const char*) {};
  if (framework.managed_tensor_allocator(&prototype, &tensor_, nullptr, ignore) != 0) {
    tensor_ = nullptr;
    raise_out_of_memory("the device has no memory for the scratch of a decode");
  }
  view_ = {static_cast<char*>(tensor_->dl_tensor.data) + tensor_->dl_tensor.byte_offset, bytes, device};
}

Lent::Lent(Lent&& other) noexcept : tensor_(std::exchange(other.tensor_, nullptr)), view_(other.view_) {}

Lent& Lent::operator=(Lent&& other) noexcept {
  std::swap(tensor_, other.tensor_);
  std::swap(view_, other.view_);
  return *this;
}

Lent::~Lent() {
  if (tensor_ != nullptr && tensor_->deleter != nullptr && !interpreter_ends) tensor_->deleter(tensor_);
}

MemoryView kept_scratch(const DLPackExchangeAPI& framework, std::int64_t bytes, Device device, Stream stream) {
  thread_local std::vector<Kept> all;
  for (Kept& kept : all) {
    if (kept.stream != stream.handle || kept.device != device) continue;
    if (kept.memory.view().bytes < bytes) {
      kept.memory = Lent();  // the framework may need it for what comes
      kept.memory = Lent(framework, bytes, device);
    }
    return kept.memory.view();
  }
  all.push_back({device, stream.handle, Lent(framework, bytes, device)});
  return all.back().memory.view();
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(leave_scratch_behind, leave_scratch_behind)

}  // namespace flash_mla::python
