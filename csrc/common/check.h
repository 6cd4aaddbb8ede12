// SPDX-License-Identifier: Apache-2.0
// What C++ throws, and the checks of a binding. csrc/bindings/module.cpp turns each type into the
// one of otcuda/errors.py with the same name.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "common/tensor_view.h"

namespace otcuda {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

#define OTCUDA_ERROR_TYPE(name) \
  class name : public Error {   \
   public:                      \
    using Error::Error;         \
  }
OTCUDA_ERROR_TYPE(ShapeError);     // shapes that do not fit together
OTCUDA_ERROR_TYPE(ArgumentError);  // a value, dtype or layout that is not allowed
OTCUDA_ERROR_TYPE(DeviceError);    // wrong or missing device
OTCUDA_ERROR_TYPE(BackendError);   // an instruction set or kernel that this machine or build lacks
OTCUDA_ERROR_TYPE(CorruptDataError);    // bytes that no encoder of ours wrote
OTCUDA_ERROR_TYPE(ModelMismatchError);  // bytes of another model
OTCUDA_ERROR_TYPE(BudgetError);         // a size that cannot be met
OTCUDA_ERROR_TYPE(LimitError);          // over the memory limit, or out of memory
OTCUDA_ERROR_TYPE(Interrupted);         // the poll callback asked to stop
#undef OTCUDA_ERROR_TYPE

// For what a caller controls: the message names the argument, what was given and what is allowed.
#define OTCUDA_CHECK(condition, message)                        \
  do {                                                          \
    if (!(condition)) throw ::otcuda::ArgumentError((message)); \
  } while (0)

constexpr int64_t any = -1;  // a size that may be anything

// Contiguous (row-major), of this dtype and shape; lying anywhere.
void check_tensor(const char* name, const TensorView& view, DType dtype,
                  std::initializer_list<int64_t> shape);

// The same, and writable.
void check_output(const char* name, const TensorView& view, DType dtype,
                  std::initializer_list<int64_t> shape);

// Both lie on the same device.
void check_same_device(const char* name, const TensorView& view, const char* other_name,
                       const TensorView& other);

// Lies in host memory; `op` has no kernel for anything else in this build.
void check_on_cpu(const char* op, const char* name, const TensorView& view);

std::string shape_text(const TensorView& view);

}  // namespace otcuda
