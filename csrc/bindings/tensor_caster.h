// SPDX-License-Identifier: Apache-2.0
// Python object -> TensorView: a DLPack capsule (torch's to_dlpack), or anything with the buffer
// protocol (NumPy).
//
// The view is borrowed for the call: a capsule is left unconsumed and its owner stays an argument,
// a buffer is held until the caster dies. Whatever Python sends ends in a TypeError, never in a
// crash.
#pragma once

#include <pybind11/pybind11.h>

#include <cstring>
#include <string>

#include "common/tensor_view.h"

namespace otcuda {

// The C structures of DLPack 1.1 (dmlc/dlpack, Apache-2.0), as far as they are read here.
struct DLPackTensor {
  void* data;
  struct {
    int32_t type, id;
  } device;
  int32_t ndim;
  struct {
    uint8_t code, bits;
    uint16_t lanes;
  } dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};
struct DLPackManaged {
  DLPackTensor tensor;
  void* context;
  void (*deleter)(DLPackManaged*);
};
struct DLPackVersioned {
  struct {
    uint32_t major, minor;
  } version;
  void* context;
  void (*deleter)(DLPackVersioned*);
  uint64_t flags;  // bit 0: read-only
  DLPackTensor tensor;
};

inline bool dtype_from_dlpack(int code, int bits, DType* dtype) {
  constexpr struct {
    int code, bits;
    DType dtype;
  } table[] = {{0, 8, DType::i8},     {0, 16, DType::i16}, {0, 32, DType::i32},
               {0, 64, DType::i64},   {1, 8, DType::u8},   {1, 16, DType::u16},
               {1, 32, DType::u32},   {1, 64, DType::u64}, {2, 16, DType::f16},
               {2, 32, DType::f32},   {2, 64, DType::f64}, {4, 16, DType::bf16},
               {6, 8, DType::boolean}};
  for (const auto& row : table) {
    if (row.code == code && row.bits == bits) {
      *dtype = row.dtype;
      return true;
    }
  }
  return false;
}

// A format string of the struct module: one native item, as NumPy writes it.
inline bool dtype_from_format(const char* format, int64_t bytes, DType* dtype) {
  if (format == nullptr) format = "B";
  if (*format == '@' || *format == '=' || *format == '<') ++format;
  if (std::strlen(format) != 1) return false;
  const int bits = int(bytes) * 8;
  if (*format == '?') return dtype_from_dlpack(6, bits, dtype);
  if (*format == 'e' || *format == 'f' || *format == 'd') return dtype_from_dlpack(2, bits, dtype);
  if (std::strchr("bhilqn", *format) != nullptr) return dtype_from_dlpack(0, bits, dtype);
  if (std::strchr("BHILQN", *format) != nullptr) return dtype_from_dlpack(1, bits, dtype);
  return false;
}

inline bool view_dlpack(const DLPackTensor& tensor, bool read_only, TensorView* view) {
  constexpr int32_t kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13;
  if (tensor.ndim < 0 || tensor.ndim > kMaxDims || tensor.dtype.lanes != 1) return false;
  if (!dtype_from_dlpack(tensor.dtype.code, tensor.dtype.bits, &view->dtype)) return false;
  const int32_t device = tensor.device.type;
  if (device == kCpu || device == kCudaHost) {
    view->device = Device::cpu;
  } else if (device == kCuda || device == kCudaManaged) {
    view->device = Device::cuda;
    view->device_index = tensor.device.id;
  } else {
    return false;
  }
  view->data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  view->ndim = tensor.ndim;
  view->read_only = read_only;
  int64_t dense = 1;
  for (int k = tensor.ndim - 1; k >= 0; --k) {
    view->shape[k] = tensor.shape[k];
    view->strides[k] = tensor.strides != nullptr ? tensor.strides[k] : dense;
    dense *= tensor.shape[k];
  }
  return true;
}

inline bool view_buffer(const Py_buffer& buffer, TensorView* view) {
  if (buffer.ndim > kMaxDims || buffer.itemsize <= 0) return false;
  if (!dtype_from_format(buffer.format, buffer.itemsize, &view->dtype)) return false;
  view->data = buffer.buf;
  view->ndim = buffer.ndim;
  view->read_only = buffer.readonly != 0;
  for (int k = 0; k < buffer.ndim; ++k) {
    view->shape[k] = buffer.shape[k];
    if (buffer.strides[k] % buffer.itemsize != 0) return false;
    view->strides[k] = buffer.strides[k] / buffer.itemsize;
  }
  return true;
}

}  // namespace otcuda

namespace pybind11::detail {

template <>
struct type_caster<otcuda::TensorView> {
  PYBIND11_TYPE_CASTER(otcuda::TensorView, const_name("Array"));

  type_caster() = default;
  type_caster(const type_caster&) = delete;
  type_caster& operator=(const type_caster&) = delete;
  // The argument loader moves casters into place before any of them has loaded.
  type_caster(type_caster&& other) noexcept : value(other.value), buffer_(other.buffer_) {
    other.buffer_.obj = nullptr;
  }
  ~type_caster() {
    if (buffer_.obj != nullptr) PyBuffer_Release(&buffer_);
  }

  bool load(handle source, bool) {
    if (PyCapsule_CheckExact(source.ptr())) return load_capsule(source.ptr());
    if (!PyObject_CheckBuffer(source.ptr())) return false;
    if (PyObject_GetBuffer(source.ptr(), &buffer_, PyBUF_STRIDES | PyBUF_FORMAT) != 0) {
      PyErr_Clear();
      buffer_.obj = nullptr;
      return false;
    }
    return otcuda::view_buffer(buffer_, &value);
  }

 private:
  bool load_capsule(PyObject* capsule) {
    if (PyCapsule_IsValid(capsule, "dltensor")) {
      auto* managed =
          static_cast<otcuda::DLPackManaged*>(PyCapsule_GetPointer(capsule, "dltensor"));
      return otcuda::view_dlpack(managed->tensor, false, &value);
    }
    if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
      auto* managed = static_cast<otcuda::DLPackVersioned*>(
          PyCapsule_GetPointer(capsule, "dltensor_versioned"));
      if (managed->version.major != 1) return false;
      return otcuda::view_dlpack(managed->tensor, (managed->flags & 1) != 0, &value);
    }
    return false;
  }

  Py_buffer buffer_{};
};

}  // namespace pybind11::detail
