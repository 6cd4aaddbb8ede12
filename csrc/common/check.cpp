// SPDX-License-Identifier: Apache-2.0
#include "common/check.h"

namespace otcuda {
namespace {

std::string sizes_text(const int64_t* begin, const int64_t* end) {
  std::string text = "[";
  for (const int64_t* size = begin; size != end; ++size) {
    if (size != begin) text += ", ";
    text += *size == any ? std::string("any") : std::to_string(*size);
  }
  return text + "]";
}

bool fits(const TensorView& view, std::initializer_list<int64_t> shape) {
  if (view.ndim != static_cast<int>(shape.size())) return false;
  const int64_t* wanted = shape.begin();
  for (int k = 0; k < view.ndim; ++k) {
    if (wanted[k] != any && wanted[k] != view.shape[k]) return false;
  }
  return true;
}

}  // namespace

std::string shape_text(const TensorView& view) {
  return sizes_text(view.shape, view.shape + view.ndim);
}

void check_tensor(const char* name, const TensorView& view, DType dtype,
                  std::initializer_list<int64_t> shape) {
  if (view.dtype != dtype) {
    throw ArgumentError(std::string(name) + " is " + dtype_name(view.dtype) + ", expected " +
                        dtype_name(dtype));
  }
  if (!fits(view, shape)) {
    throw ShapeError(std::string(name) + " has shape " + shape_text(view) + ", expected " +
                     sizes_text(shape.begin(), shape.end()));
  }
  if (!view.is_contiguous()) {
    throw ArgumentError(std::string(name) + " is not contiguous (row-major)");
  }
  if (reinterpret_cast<uintptr_t>(view.data) % dtype_bytes(dtype) != 0 && view.size() > 0) {
    throw ArgumentError(std::string(name) + " is not aligned to its element size");
  }
}

void check_output(const char* name, const TensorView& view, DType dtype,
                  std::initializer_list<int64_t> shape) {
  check_tensor(name, view, dtype, shape);
  if (view.read_only) throw ArgumentError(std::string(name) + " is read-only, but is written to");
}

void check_same_device(const char* name, const TensorView& view, const char* other_name,
                       const TensorView& other) {
  if (view.device != other.device || view.device_index != other.device_index) {
    throw DeviceError(std::string(name) + " and " + other_name + " lie on different devices");
  }
}

void check_on_cpu(const char* op, const char* name, const TensorView& view) {
  if (view.device != Device::cpu) {
    throw DeviceError(std::string(op) + ": " + name +
                      " lies on a CUDA device, but this build of otcuda has no CUDA kernel for it; "
                      "move it with .cpu() or rebuild with OTCUDA_CUDA=ON");
  }
}

}  // namespace otcuda
