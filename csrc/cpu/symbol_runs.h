// SPDX-License-Identifier: Apache-2.0
// Arrays of any integer dtype, a run at a time: symbols as int32, tables as uint16, each checked
// when it is read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

#include "common/alloc.h"
#include "common/check.h"
#include "common/tensor_view.h"
#include "cpu/tables.h"

namespace otcuda::cpu {

constexpr int64_t kRun = 1024;  // elements read, coded and written at a time; between runs we poll

[[noreturn]] inline void refuse(const char* what, int64_t i, int64_t value,
                                const std::string& allowed) {
  throw ArgumentError(std::string(what) + "[" + std::to_string(i) + "] is " +
                      std::to_string(value) + ", expected " + allowed);
}

inline std::string span_text(int64_t low, int64_t high) {
  return std::to_string(low) + " .. " + std::to_string(high);
}

// Calls f with a null pointer to the integer type behind the dtype.
template <class Function>
void with_integer(DType dtype, const Function& f) {
  switch (dtype) {
    case DType::u8:
      return f(static_cast<uint8_t*>(nullptr));
    case DType::i8:
      return f(static_cast<int8_t*>(nullptr));
    case DType::u16:
      return f(static_cast<uint16_t*>(nullptr));
    case DType::i16:
      return f(static_cast<int16_t*>(nullptr));
    case DType::u32:
      return f(static_cast<uint32_t*>(nullptr));
    case DType::i32:
      return f(static_cast<int32_t*>(nullptr));
    case DType::u64:
      return f(static_cast<uint64_t*>(nullptr));
    case DType::i64:
      return f(static_cast<int64_t*>(nullptr));
    default:
      throw ArgumentError(std::string("an array of ") + dtype_name(dtype) +
                          " was given, expected integers");
  }
}

// As int64; what lies above it, as the largest.
template <class T>
int64_t clamped(T value) {
  const bool above = std::is_unsigned_v<T> && static_cast<uint64_t>(value) > INT64_MAX;
  return above ? INT64_MAX : static_cast<int64_t>(value);
}

// Elements begin .. begin + n - 1.
inline void load(const TensorView& view, int64_t begin, int64_t n, int64_t* run) {
  with_integer(view.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T* from = view.read<T>() + begin;
    for (int64_t i = 0; i < n; ++i) {
      const T value = from[i];
      run[i] = clamped(value);
      if (static_cast<T>(run[i]) != value) {
        throw ArgumentError("an element is " + std::to_string(value) + ", over 2^63 - 1");
      }
    }
  });
}

// The same, narrowed to To; calls refuse(i, value) for the first one outside low .. high, a span
// inside To. Without a branch an element: with one, reading costs half as much as coding.
template <class To, class Refuse>
void load_within(const TensorView& view, int64_t begin, int64_t n, int64_t low, int64_t high,
                 To* run, const Refuse& refuse_element) {
  bool outside = false;
  with_integer(view.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T* from = view.read<T>() + begin;
    T least = std::numeric_limits<T>::max(), most = std::numeric_limits<T>::min();
    for (int64_t i = 0; i < n; ++i) {
      const T value = from[i];
      least = std::min(least, value);
      most = std::max(most, value);
      run[i] = static_cast<To>(value);
    }
    outside = n > 0 && (clamped(least) < low || clamped(most) > high);
  });
  if (!outside) return;
  Vector<int64_t> wide(n);
  load(view, begin, n, wide.data());
  for (int64_t i = 0; i < n; ++i) {
    if (wide[i] < low || wide[i] > high) refuse_element(begin + i, wide[i]);
  }
  throw ArgumentError("an array was changed while it was read");
}

inline void store(const int32_t* run, int64_t begin, int64_t n, const TensorView& view) {
  with_integer(view.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    T* to = view.write<T>() + begin;
    uint32_t misfit = 0;  // any bit that the narrower number does not give back
    for (int64_t i = 0; i < n; ++i) {
      const int32_t value = run[i];
      to[i] = static_cast<T>(value);
      if (std::is_unsigned_v<T> && sizeof(T) >= 4) {
        misfit |= static_cast<uint32_t>(value) & 0x80000000u;
      } else {
        misfit |= static_cast<uint32_t>(value ^ static_cast<int32_t>(to[i]));
      }
    }
    if (misfit == 0) return;
    const auto [least, most] = std::minmax_element(run, run + n);
    throw CorruptDataError("a symbol among " + span_text(*least, *most) + " does not fit " +
                           dtype_name(view.dtype));
  });
}

// Symbols and tables of a run, all of them codable.
struct Run {
  int32_t symbol[kRun];
  uint16_t table[kRun] = {};

  void load_symbols(const Tables& tables, const TensorView& symbols, int64_t begin, int64_t n) {
    const bool any_symbol = tables.escape();
    const int64_t low = any_symbol ? INT32_MIN : tables.low();
    const int64_t high = any_symbol ? INT32_MAX : low + tables.symbols() - 1;
    load_within(symbols, begin, n, low, high, symbol, [&](int64_t i, int64_t value) {
      refuse("symbols", i, value, span_text(low, high) + (any_symbol ? "" : " (no escape)"));
    });
  }

  void load_index(const Tables& tables, const TensorView& index, int64_t begin, int64_t n) {
    const int64_t high = tables.count() - 1;
    load_within(index, begin, n, 0, high, table,
                [&](int64_t i, int64_t value) { refuse("index", i, value, span_text(0, high)); });
  }
};

// Calls run(begin, n) for the runs of a length.
template <class Function>
void for_runs(int64_t length, const Function& run) {
  for (int64_t begin = 0; begin < length; begin += kRun) run(begin, std::min(kRun, length - begin));
}

}  // namespace otcuda::cpu
