// plan, schedule, num_splits and decode for Python: one call each, on plans that Python keeps as objects.
#include "plan.h"

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tuple.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <cstdint>

#include "scratch.h"
#include "views.h"

namespace flash_mla::python {
namespace {

PlanRef make_plan(std::int64_t device_type, std::int64_t device_index, std::int64_t dtype, std::int64_t max_batch,
                  std::int64_t max_total_q, std::int64_t max_seqlen_q, std::int64_t num_heads_q,
                  std::int64_t num_heads_kv, std::int64_t page_size, bool causal, std::int64_t num_parts) {
  const auto narrow = [](std::int64_t value) {  // what does not fit is refused as a value that is too large
    return static_cast<std::int32_t>(std::clamp<std::int64_t>(value, INT32_MIN, INT32_MAX));
  };
  return PlanRef(value_or_raise(plan({.device = device_of(device_type, device_index),
                                      .dtype = static_cast<DType>(dtype),
                                      .max_batch = narrow(max_batch),
                                      .max_total_q = max_total_q,
                                      .max_seqlen_q = narrow(max_seqlen_q),
                                      .num_heads_q = narrow(num_heads_q),
                                      .num_heads_kv = narrow(num_heads_kv),
                                      .page_size = narrow(page_size),
                                      .causal = causal,
                                      .num_parts = narrow(num_parts)})));
}

ffi::Array<std::int64_t> describe_plan(const PlanRef& plan) {
  const Plan& value = plan->plan;
  return {value.num_parts(), value.rows_per_unit(), value.schedule_bytes(), value.scratch_bytes()};
}

// For calls that do not come through tvm-ffi; valid while Python holds the plan.
std::int64_t address_of_plan(const PlanRef& plan) { return reinterpret_cast<std::intptr_t>(&plan->plan); }

void make_schedule(const PlanRef& plan, const ffi::TensorView& cache_seqlens, const OptionalTensor& cu_seqlens_q,
                   std::int64_t seqlen_q, const ffi::TensorView& schedule_memory, std::int64_t stream) {
  raise_unless_ok(schedule(plan->plan,
                           {.cache_seqlens = view_of("cache_seqlens", cache_seqlens),
                            .cu_seqlens_q = view_of("cu_seqlens_q", cu_seqlens_q),
                            .seqlen_q = static_cast<std::int32_t>(seqlen_q)},
                           memory_of("schedule", schedule_memory), stream_of(stream, plan->plan.config().device)));
}

void count_splits(const PlanRef& plan, const ffi::TensorView& schedule_memory, const ffi::TensorView& counts,
                  std::int64_t stream) {
  raise_unless_ok(num_splits(plan->plan, memory_of("schedule", schedule_memory), view_of("num_splits", counts),
                             stream_of(stream, plan->plan.config().device)));
}

// From the framework whose tensors these are, ordered by its current stream, and given back when the call has enqueued
// its work: as frameworks do with what their own operators need in between.
ffi::Tensor scratch_of_framework(std::int64_t bytes, Device device) {
  return ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, {bytes}, {kDLUInt, 8, 1}, dlpack_device_of(device));
}

void run_decode(const PlanRef& plan, const ffi::TensorView& q, const OptionalTensor& q_rope,
                const ffi::TensorView& kv_cache, const OptionalTensor& k_rope_cache, const ffi::TensorView& block_table,
                const ffi::TensorView& cache_seqlens, const OptionalTensor& cu_seqlens_q, const ffi::TensorView& out,
                const OptionalTensor& lse, double softmax_scale, const ffi::TensorView& schedule_memory,
                const OptionalTensor& scratch, std::int64_t stream) {
  const Device device = plan->plan.config().device;
  const DecodeArgs args = {.q = view_of("q", q),
                           .q_rope = view_of("q_rope", q_rope),
                           .kv_cache = view_of("kv_cache", kv_cache),
                           .k_rope_cache = view_of("k_rope_cache", k_rope_cache),
                           .block_table = view_of("block_table", block_table),
                           .cache_seqlens = view_of("cache_seqlens", cache_seqlens),
                           .cu_seqlens_q = view_of("cu_seqlens_q", cu_seqlens_q),
                           .out = view_of("out", out),
                           .lse = view_of("lse", lse),
                           .softmax_scale = static_cast<float>(softmax_scale)};
  const MemoryView schedule = memory_of("schedule", schedule_memory);
  const auto run = [&](const MemoryView& lent) {
    raise_unless_ok(decode(plan->plan, args, schedule, lent, stream_of(stream, device)));
  };
  if (scratch.has_value()) {
    run(memory_of("scratch", scratch.value()));
  } else if (device.type == DeviceType::cpu) {
    run(scratch_of_this_thread(plan->plan.scratch_bytes()));
  } else {
    const ffi::Tensor owned = scratch_of_framework(plan->plan.scratch_bytes(), device);
    run(memory_of("scratch", owned));
  }
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(plan, make_plan)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(describe_plan, describe_plan)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(address_of_plan, address_of_plan)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(schedule, make_schedule)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(num_splits, count_splits)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(decode, run_decode)

}  // namespace flash_mla::python
