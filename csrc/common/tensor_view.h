// SPDX-License-Identifier: Apache-2.0
// A borrowed array: pointer, shape, strides, dtype, device. Owns nothing; valid as long as its
// owner.
#pragma once

#include <cstdint>

namespace otcuda {

enum class DType : uint8_t { boolean, u8, i8, u16, i16, u32, i32, u64, i64, f16, bf16, f32, f64 };

constexpr const char* dtype_name(DType dtype) {
  constexpr const char* names[] = {"bool",     "uint8",   "int8",   "uint16", "int16",
                                   "uint32",   "int32",   "uint64", "int64",  "float16",
                                   "bfloat16", "float32", "float64"};
  return names[static_cast<int>(dtype)];
}

constexpr int dtype_bytes(DType dtype) {
  constexpr int bytes[] = {1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 4, 8};
  return bytes[static_cast<int>(dtype)];
}

enum class Device : uint8_t { cpu, cuda };

constexpr int kMaxDims = 8;

struct TensorView {
  void* data = nullptr;
  int ndim = 0;
  int64_t shape[kMaxDims] = {};
  int64_t strides[kMaxDims] = {};  // in elements
  DType dtype = DType::f32;
  Device device = Device::cpu;
  int device_index = 0;
  bool read_only = false;

  int64_t size() const {
    int64_t n = 1;
    for (int k = 0; k < ndim; ++k) n *= shape[k];
    return n;
  }

  bool is_contiguous() const {
    if (size() == 0) return true;
    int64_t expected = 1;
    for (int k = ndim - 1; k >= 0; --k) {
      if (shape[k] != 1 && strides[k] != expected) return false;
      expected *= shape[k];
    }
    return true;
  }

  // The caller has checked dtype and layout (check_tensor).
  template <class T>
  const T* read() const {
    return static_cast<const T*>(data);
  }
  template <class T>
  T* write() const {
    return static_cast<T*>(data);
  }
};

}  // namespace otcuda
