// SPDX-License-Identifier: Apache-2.0
// What the targets that read any bytes share: numbers and arrays from the front of the input, and
// a main of its own for compilers without libFuzzer (-DOTCUDA_FUZZ_MAIN): TARGET RUNS SEED.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cases.h"
#include "common/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace otcuda::fuzz {

// Takes numbers from the front; zeros when nothing is left.
struct Source {
  const uint8_t* next;
  const uint8_t* end;

  uint32_t byte() { return next != end ? *next++ : 0; }
  uint32_t number() { return byte() | byte() << 8; }
  uint32_t word() { return number() | number() << 16; }
  std::vector<uint8_t> take(size_t n) {
    std::vector<uint8_t> taken(n);
    for (uint8_t& each : taken) each = static_cast<uint8_t>(byte());
    return taken;
  }
  std::vector<uint8_t> rest() const { return std::vector<uint8_t>(next, end); }
};

// Frequencies as they come; the last one of each table makes up for the sum, where it can.
inline cpu::Tables tables_of(Source& from) {
  const int P = 1 + static_cast<int>(from.byte() % 24);
  const bool escape = from.byte() % 2 != 0;
  const int64_t T = 1 + from.byte() % 3, n = 1 + from.byte() % 12;
  std::vector<uint32_t> frequencies;
  for (int64_t t = 0; t < T; ++t) {
    uint32_t left = (1u << P) - (escape ? 1 : 0);
    for (int64_t s = 0; s < n; ++s) {
      const uint32_t f = s + 1 < n ? from.number() % (left + 1) : left;
      frequencies.push_back(f);
      left -= std::min(left, f);
    }
  }
  if (from.byte() % 8 == 0) frequencies[0] += from.number();
  const int32_t low = static_cast<int32_t>(from.number() << 16);
  return cpu::Tables(frequencies.data(), T, n, low, P, escape);
}

// An array of any shape in a heap block of its exact size.
struct Array {
  Array(const std::vector<uint8_t>& from, DType dtype, std::vector<int64_t> shape)
      : bytes(from), dtype_(dtype), shape_(std::move(shape)) {}
  template <class T>
  Array(const std::vector<T>& from, DType dtype, std::vector<int64_t> shape)
      : Array(bytes_of(from), dtype, std::move(shape)) {}

  TensorView view() const {
    TensorView result;
    result.data = bytes.data.get();
    result.ndim = static_cast<int>(shape_.size());
    result.dtype = dtype_;
    int64_t stride = 1;
    for (int k = result.ndim; k-- > 0; stride *= shape_[k]) {
      result.shape[k] = shape_[k];
      result.strides[k] = stride;
    }
    return result;
  }

  Exact bytes;

 private:
  template <class T>
  static std::vector<uint8_t> bytes_of(const std::vector<T>& from) {
    std::vector<uint8_t> raw(from.size() * sizeof(T));
    if (!raw.empty()) std::memcpy(raw.data(), from.data(), raw.size());
    return raw;
  }
  DType dtype_;
  std::vector<int64_t> shape_;
};

// Whether the call was refused, by ArgumentError.
template <class Call>
bool refused(const Call& call) {
  try {
    call();
  } catch (const ArgumentError&) {
    return true;
  }
  return false;
}

// Whether it was read, not refused by CorruptDataError.
template <class Call>
bool was_read(const Call& call) {
  try {
    call();
  } catch (const CorruptDataError&) {
    return false;
  }
  return true;
}

}  // namespace otcuda::fuzz

#ifdef OTCUDA_FUZZ_MAIN
int main(int argc, char** argv) {
  using namespace otcuda::fuzz;
  const uint64_t runs = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1000;
  generator.seed(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0);
  for (uint64_t k = 0; k < runs; ++k) {
    std::vector<uint8_t> bytes(below(400));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(one_in(3) ? 0 : generator());
    const Exact exact(bytes);
    LLVMFuzzerTestOneInput(exact.data.get(), exact.size);
  }
  std::printf("%llu runs, nothing found\n", static_cast<unsigned long long>(runs));
}
#endif
