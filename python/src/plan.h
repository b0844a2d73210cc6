// A Plan as an object that Python can hold.
#pragma once

#include <tvm/ffi/memory.h>
#include <tvm/ffi/object.h>

#include <utility>

#include "flash_mla/flash_mla.h"

namespace flash_mla::python {

class PlanObject : public tvm::ffi::Object {
 public:
  explicit PlanObject(const Plan& value) : plan(value) {}
  const Plan plan;
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("flash_mla.Plan", PlanObject, tvm::ffi::Object);
};

class PlanRef : public tvm::ffi::ObjectRef {
 public:
  explicit PlanRef(const Plan& plan) : PlanRef(tvm::ffi::make_object<PlanObject>(plan)) {}
  explicit PlanRef(tvm::ffi::ObjectPtr<PlanObject> object) : ObjectRef(std::move(object)) {}
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NOTNULLABLE(PlanRef, tvm::ffi::ObjectRef, PlanObject);
};

}  // namespace flash_mla::python
