// decode as a function of Python's own C interface, for calls that count microseconds: it takes a framework's tensors
// through the DLPack exchange API, without objects in between, where tvm-ffi makes two for each tensor.
//
//   decode(plan address, q, q_rope, cache, rope_cache, block_table, cache_seqlens, cu_seqlens_q, out, lse,
//          softmax_scale, schedule, keep_scratch) -> bool
//
// False: nothing was done, for an argument is wrong, or is of a type that this way does not take. The caller then goes
// the ordinary way, which says what is wrong.
//
// Python's headers are not needed, so that one library serves every version: its functions come as addresses, its
// objects are only passed on, and the two declarations of the interface that are repeated here are stable.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/function.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "scratch.h"
#include "streams.h"
#include "views.h"

namespace flash_mla::python {
namespace {

using PyObject = void;

struct PyMethodDef {
  const char* name;
  void* function;
  int flags;
  const char* doc;
};
constexpr int kFastCall = 0x80;  // METH_FASTCALL: (self, arguments, their number)

// What python/flash_mla/_direct.py passes, in this order.
struct Interpreter {
  const DLPackExchangeAPI* framework;
  PyObject* tensor_type;
  PyObject* parameter_type;
  PyObject* none;
  PyObject* no;                     // False
  PyObject* yes;                    // True
  PyObject* (*type_of)(PyObject*);  // a new reference
  void (*add_reference)(PyObject*);
  void (*drop_reference)(PyObject*);
  void* (*pointer_of)(PyObject*);  // of an int
  double (*double_of)(PyObject*);
  void (*clear_error)();
  void* (*release_lock)();
  void (*take_lock)(void*);
};
Interpreter interpreter = {};

enum Argument {
  kPlan,
  kQ,
  kQRope,
  kCache,
  kRopeCache,
  kBlockTable,
  kLengths,
  kCuSeqlensQ,
  kOut,
  kLse,
  kScale,
  kSchedule,
  kKeep,
  kCount
};

bool is_tensor(PyObject* object) {
  PyObject* const type = interpreter.type_of(object);
  interpreter.drop_reference(type);  // the object holds one
  return type == interpreter.tensor_type || type == interpreter.parameter_type;
}

// False: it is neither a tensor that the framework exports nor, where that is allowed, None.
bool read_tensor(PyObject* object, bool may_lack, DLTensor* tensor) {
  tensor->ndim = 0;
  if (may_lack && object == interpreter.none) return true;
  return is_tensor(object) && interpreter.framework->dltensor_from_py_object_no_sync(object, tensor) == 0 &&
         tensor->ndim > 0;
}

TensorView view_if_given(const char* name, const DLTensor& tensor) {
  return tensor.ndim == 0 ? TensorView() : view_of(name, ffi::TensorView(&tensor));
}

struct Call {
  const Plan* plan = nullptr;
  DecodeArgs args;
  MemoryView schedule;
  bool keep_scratch = true;
};

bool read_arguments(PyObject* const* objects, Call* call) {
  DLTensor tensors[kCount];
  for (const Argument i : {kQ, kCache, kBlockTable, kLengths, kOut, kSchedule}) {
    if (!read_tensor(objects[i], false, &tensors[i])) return false;
  }
  for (const Argument i : {kQRope, kRopeCache, kCuSeqlensQ, kLse}) {
    if (!read_tensor(objects[i], true, &tensors[i])) return false;
  }
  call->plan = static_cast<const Plan*>(interpreter.pointer_of(objects[kPlan]));
  call->args = {.q = view_if_given("q", tensors[kQ]),
                .q_rope = view_if_given("q_rope", tensors[kQRope]),
                .kv_cache = view_if_given("kv_cache", tensors[kCache]),
                .k_rope_cache = view_if_given("k_rope_cache", tensors[kRopeCache]),
                .block_table = view_if_given("block_table", tensors[kBlockTable]),
                .cache_seqlens = view_if_given("cache_seqlens", tensors[kLengths]),
                .cu_seqlens_q = view_if_given("cu_seqlens_q", tensors[kCuSeqlensQ]),
                .out = view_if_given("out", tensors[kOut]),
                .lse = view_if_given("lse", tensors[kLse]),
                .softmax_scale = static_cast<float>(interpreter.double_of(objects[kScale]))};
  call->schedule = memory_of("schedule", ffi::TensorView(&tensors[kSchedule]));
  call->keep_scratch = objects[kKeep] == interpreter.yes;
  // A plan that another number of parts was scheduled for would not fit; the size tells.
  return call->plan != nullptr && call->schedule.bytes == call->plan->schedule_bytes();
}

bool run(const Call& call) {
  const Plan& plan = *call.plan;
  const Device device = plan.config().device;
  if (device.type == DeviceType::cpu) {
    return decode(plan, call.args, call.schedule, scratch_of_this_thread(plan.scratch_bytes())).ok();
  }
  Stream stream;
  if (interpreter.framework->current_work_stream(kDLCUDA, device.index, &stream.handle) != 0) return false;
  if (call.keep_scratch && !is_capturing(stream)) {
    const MemoryView scratch = kept_scratch(*interpreter.framework, plan.scratch_bytes(), device, stream);
    return decode(plan, call.args, call.schedule, scratch, stream).ok();
  }
  const Lent scratch(*interpreter.framework, plan.scratch_bytes(), device);  // a graph keeps account of its memory
  return decode(plan, call.args, call.schedule, scratch.view(), stream).ok();
}

bool run_unlocked(const Call& call) {
  void* const thread = interpreter.release_lock();
  bool done = false;
  try {
    done = run(call);
  } catch (...) {  // there is no memory; the ordinary way says so
  }
  interpreter.take_lock(thread);
  return done;
}

PyObject* decode_directly(PyObject*, PyObject* const* arguments, std::ptrdiff_t count) noexcept {
  bool done = false;
  try {
    Call call;
    done = count == kCount && read_arguments(arguments, &call) && run_unlocked(call);
  } catch (...) {  // a dtype or a device that the library does not know
  }
  if (!done) interpreter.clear_error();
  PyObject* const result = done ? interpreter.yes : interpreter.no;
  interpreter.add_reference(result);
  return result;
}

// The address of the definition that Python makes a function of; 0: the framework's interface lacks what this takes.
std::int64_t prepare_direct_decode(const ffi::Array<std::int64_t>& addresses) {
  constexpr std::size_t kAddresses = sizeof(Interpreter) / sizeof(void*);
  if (addresses.size() != kAddresses) return 0;
  std::intptr_t values[kAddresses];
  for (std::size_t i = 0; i < kAddresses; ++i)
    values[i] = static_cast<std::intptr_t>(addresses[static_cast<std::int64_t>(i)]);
  std::memcpy(&interpreter, values, sizeof interpreter);
  const DLPackExchangeAPI& framework = *interpreter.framework;
  if (framework.header.version.major != DLPACK_MAJOR_VERSION || framework.dltensor_from_py_object_no_sync == nullptr ||
      framework.managed_tensor_allocator == nullptr || framework.current_work_stream == nullptr) {
    return 0;
  }
  static PyMethodDef definition = {"decode", reinterpret_cast<void*>(&decode_directly), kFastCall, nullptr};
  return reinterpret_cast<std::intptr_t>(&definition);
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(prepare_direct_decode, prepare_direct_decode)

}  // namespace flash_mla::python
