// SPDX-License-Identifier: Apache-2.0
// Arrays of any integer dtype, a run at a time: symbols as int32, tables as uint16, each checked
// when it is read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>

#include "common/alloc.h"
#include "common/check.h"
#include "common/tensor_view.h"
#include "cpu/symbol_runs_kernels.h"
#include "cpu/tables.h"

namespace otcuda::cpu {

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

// The kernels of the level in force.
const SymbolKernels& symbol_kernels();

// ArgumentError for what is no integer.
inline int integer_type(DType dtype) {
  if (dtype < DType::u8 || dtype > DType::i64) with_integer(dtype, [](auto*) {});
  return static_cast<int>(dtype) - static_cast<int>(DType::u8);
}

inline char* element(const TensorView& view, int64_t i) {
  return static_cast<char*>(view.data) + i * dtype_bytes(view.dtype);
}

// Calls refuse_element(i, value) for the first element of a run that lies outside low .. high.
template <class Refuse>
[[noreturn]] void refuse_first(const TensorView& view, int64_t begin, int64_t n, int64_t low,
                               int64_t high, const Refuse& refuse_element) {
  Vector<int64_t> wide(n);
  load(view, begin, n, wide.data());
  for (int64_t i = 0; i < n; ++i) {
    if (wide[i] < low || wide[i] > high) refuse_element(begin + i, wide[i]);
  }
  throw ArgumentError("an array was changed while it was read");
}

// Symbols and tables of a run, all of them codable. On lines of the cache: vectors that lie across
// two cost a decoder 4 %.
struct Run {
  const SymbolKernels& kernels = symbol_kernels();
  alignas(64) int32_t symbol[kRun];
  alignas(64) uint16_t table[kRun] = {};

  void load_symbols(const Tables& tables, const TensorView& symbols, int64_t begin, int64_t n) {
    load_symbols(tables, symbols, begin, n, [&](auto... span) {
      return kernels.read_symbols[integer_type(symbols.dtype)](span...);
    });
  }

  // The same, and their part of a check: they stand at first, first + 1, ...
  void load_symbols(const Tables& tables, const TensorView& symbols, int64_t begin, int64_t n,
                    int64_t first, uint32_t* check) {
    load_symbols(tables, symbols, begin, n, [&](auto... span) {
      const auto read = kernels.read_and_sum[integer_type(symbols.dtype)];
      return read(span..., static_cast<uint32_t>(first), check);
    });
  }

  template <class Read>
  void load_symbols(const Tables& tables, const TensorView& symbols, int64_t begin, int64_t n,
                    const Read& read) {
    const bool any_symbol = tables.escape();
    const int64_t low = any_symbol ? INT32_MIN : tables.low();
    const int64_t high = any_symbol ? INT32_MAX : low + tables.symbols() - 1;
    if (read(element(symbols, begin), n, low, high, symbol)) return;
    refuse_first(symbols, begin, n, low, high, [&](int64_t i, int64_t value) {
      refuse("symbols", i, value, span_text(low, high) + (any_symbol ? "" : " (no escape)"));
    });
  }

  void load_index(const Tables& tables, const TensorView& index, int64_t begin, int64_t n) {
    const int64_t high = tables.count() - 1;
    const auto read = kernels.read_tables[integer_type(index.dtype)];
    if (read(element(index, begin), n, 0, high, table)) return;
    refuse_first(index, begin, n, 0, high,
                 [&](int64_t i, int64_t value) { refuse("index", i, value, span_text(0, high)); });
  }

  // CorruptDataError for a symbol that does not fit.
  void store(int64_t begin, int64_t n, const TensorView& view) const {
    const auto write = kernels.write_symbols[integer_type(view.dtype)];
    if (!write(symbol, n, element(view, begin))) refuse_stored(n, view);
  }

  // The same, and their part of a check.
  void store(int64_t begin, int64_t n, const TensorView& view, const CheckWeights& weights,
             uint32_t* check) const {
    const auto write = kernels.write_and_sum[integer_type(view.dtype)];
    if (!write(symbol, n, element(view, begin), weights, check)) refuse_stored(n, view);
  }

 private:
  [[noreturn]] void refuse_stored(int64_t n, const TensorView& view) const {
    const auto [least, most] = std::minmax_element(symbol, symbol + n);
    throw CorruptDataError("a symbol among " + span_text(*least, *most) + " does not fit " +
                           dtype_name(view.dtype));
  }
};

// Calls run(begin, n) for the runs of a length.
template <class Function>
void for_runs(int64_t length, const Function& run) {
  for (int64_t begin = 0; begin < length; begin += kRun) run(begin, std::min(kRun, length - begin));
}

}  // namespace otcuda::cpu
