// SPDX-License-Identifier: Apache-2.0
#include "cpu/range64.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "common/check.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kRun = 1024;  // elements read, coded and written at a time; between runs we poll

[[noreturn]] void refuse(const char* what, int64_t i, int64_t value, const std::string& allowed) {
  throw ArgumentError(std::string(what) + "[" + std::to_string(i) + "] is " +
                      std::to_string(value) + ", expected " + allowed);
}

std::string span_text(int64_t low, int64_t high) {
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

// Elements begin .. begin + n - 1, n <= kRun.
void load(const TensorView& view, int64_t begin, int64_t n, int64_t* run) {
  with_integer(view.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T* from = view.read<T>() + begin;
    for (int64_t i = 0; i < n; ++i) {
      const T value = from[i];
      if (sizeof(T) == 8 && std::is_unsigned_v<T> && static_cast<int64_t>(value) < 0) {
        throw ArgumentError("an element is " + std::to_string(value) + ", over 2^63 - 1");
      }
      run[i] = static_cast<int64_t>(value);
    }
  });
}

void store(const int64_t* run, int64_t begin, int64_t n, const TensorView& view) {
  with_integer(view.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    T* to = view.write<T>() + begin;
    for (int64_t i = 0; i < n; ++i) {
      to[i] = static_cast<T>(run[i]);
      if (static_cast<int64_t>(to[i]) != run[i] || (std::is_unsigned_v<T> && run[i] < 0)) {
        throw CorruptDataError("symbol " + std::to_string(run[i]) + " at " +
                               std::to_string(begin + i) + " does not fit " +
                               dtype_name(view.dtype));
      }
    }
  });
}

// What follows the escape: the symbol, uniform among n + 1; n stands for those outside the
// alphabet, told by their side and their distance.
void put_escaped(Encoder& encoder, const Tables& tables, int64_t offset) {
  const int64_t n = tables.symbols();
  if (offset >= 0 && offset < n) {
    encoder.uniform(static_cast<uint32_t>(offset), static_cast<uint32_t>(n + 1));
    return;
  }
  encoder.uniform(static_cast<uint32_t>(n), static_cast<uint32_t>(n + 1));
  encoder.bits(offset < 0 ? 1 : 0, 1);
  encoder.exp_golomb(static_cast<uint64_t>(offset < 0 ? -1 - offset : offset - n));
}

int64_t get_escaped(RangeDecoder& decoder, const Tables& tables, uint32_t table) {
  const int64_t n = tables.symbols(), low = tables.low();
  const uint32_t inside = decoder.uniform(static_cast<uint32_t>(n + 1));
  if (inside < n) {
    // An encoder escapes only what has no interval.
    if (tables.interval(table, inside).frequency != 0) decoder.reject();
    return low + int64_t{inside};
  }
  const bool below = decoder.bits(1) != 0;
  const int64_t distance =
      static_cast<int64_t>(std::min<uint64_t>(decoder.exp_golomb(), 1ull << 33));
  const int64_t symbol = below ? low - 1 - distance : low + n + distance;
  if (symbol >= INT32_MIN && symbol <= INT32_MAX) return symbol;
  decoder.reject();
  return low;
}

[[noreturn]] void refuse_symbol(const Tables& tables, int64_t i, int64_t symbol) {
  if (tables.escape()) refuse("symbols", i, symbol, span_text(INT32_MIN, INT32_MAX));
  refuse("symbols", i, symbol,
         span_text(tables.low(), tables.low() + tables.symbols() - 1) + " (no escape)");
}

void check_index(const Tables& tables, int64_t i, int64_t table) {
  if (static_cast<uint64_t>(table) < static_cast<uint64_t>(tables.count())) return;
  refuse("index", i, table, span_text(0, tables.count() - 1));
}

bool is_codable(const Tables& tables, int64_t symbol) {
  if (tables.escape()) return symbol >= INT32_MIN && symbol <= INT32_MAX;
  return symbol >= tables.low() && symbol - tables.low() < tables.symbols();
}

// Calls run(begin, n) for the runs of a length.
template <class Function>
void for_runs(int64_t length, const Function& run) {
  for (int64_t begin = 0; begin < length; begin += kRun) run(begin, std::min(kRun, length - begin));
}

// put(value) for every value, after allowed(value) held for all of them.
template <class Allowed, class Put>
void put_each(const TensorView& values, const std::string& text, const Allowed& allowed,
              const Put& put) {
  Vector<int64_t> checked(values.size());
  for_runs(values.size(), [&](int64_t begin, int64_t n) {
    load(values, begin, n, checked.data() + begin);
    for (int64_t i = begin; i < begin + n; ++i) {
      if (!allowed(checked[i])) refuse("values", i, checked[i], text);
    }
  });
  for (int64_t i = 0; i < values.size(); ++i) put(i, checked[i]);
}

template <class Get>
void get_each(RangeDecoder& decoder, const TensorView& values, const Get& get) {
  for (int64_t i = 0; i < values.size(); ++i) values.write<int64_t>()[i] = get(i);
  if (decoder.corrupt()) throw CorruptDataError("the message holds a step that no encoder writes");
}

Vector<int64_t> probabilities(const TensorView& p1, int64_t length, int P) {
  Vector<int64_t> checked(p1.size());
  OTCUDA_CHECK(p1.size() == length, "p1 and values differ in length");
  for_runs(p1.size(), [&](int64_t begin, int64_t n) {
    load(p1, begin, n, checked.data() + begin);
    for (int64_t i = begin; i < begin + n; ++i) {
      if (checked[i] >= 1 && checked[i] >> P == 0) continue;
      refuse("p1", i, checked[i], span_text(1, (int64_t{1} << P) - 1));
    }
  });
  return checked;
}

}  // namespace

void range64_put(Encoder& encoder, const Tables& tables, const TensorView& symbols,
                 const TensorView* index, Poll& poll) {
  const int P = tables.precision();
  const uint64_t alphabet = static_cast<uint64_t>(tables.symbols());
  int64_t symbol[kRun], table[kRun] = {};
  for_runs(symbols.size(), [&](int64_t begin, int64_t n) {
    poll(double(begin) / double(symbols.size()));
    load(symbols, begin, n, symbol);
    if (index != nullptr) load(*index, begin, n, table);
    Encoder local = std::move(encoder);  // its state lives in registers
    for (int64_t i = 0; i < n; ++i) {
      check_index(tables, begin + i, table[i]);
      const uint64_t offset =
          static_cast<uint64_t>(symbol[i]) - static_cast<uint64_t>(int64_t{tables.low()});
      if (offset < alphabet) {
        const auto at =
            tables.interval(static_cast<uint32_t>(table[i]), static_cast<uint32_t>(offset));
        if (at.frequency != 0) {
          local.put(at.start, at.frequency, P);
          continue;
        }
      }
      if (!is_codable(tables, symbol[i])) refuse_symbol(tables, begin + i, symbol[i]);
      local.put(tables.escape_slot(), 1, P);
      put_escaped(local, tables, static_cast<int64_t>(offset));
    }
    encoder = std::move(local);
  });
}

void range64_get(RangeDecoder& decoder, const Tables& tables, const TensorView* index,
                 const TensorView& symbols, Poll& poll) {
  const int P = tables.precision();
  const uint32_t escape = tables.escape() ? tables.escape_slot() : UINT32_MAX;
  int64_t symbol[kRun], table[kRun] = {};
  for_runs(symbols.size(), [&](int64_t begin, int64_t n) {
    poll(double(begin) / double(symbols.size()));
    if (index != nullptr) load(*index, begin, n, table);
    RangeDecoder local = decoder;
    for (int64_t i = 0; i < n; ++i) {
      check_index(tables, begin + i, table[i]);
      const uint32_t slot = local.slot(P);
      if (slot == escape) {
        local.take(escape, 1, P);
        symbol[i] = get_escaped(local, tables, static_cast<uint32_t>(table[i]));
        continue;
      }
      const auto found = tables.find(static_cast<uint32_t>(table[i]), slot);
      local.take(found.start, found.frequency, P);
      symbol[i] = tables.low() + int64_t{found.symbol};
    }
    decoder = local;
    if (decoder.corrupt())
      throw CorruptDataError("the message holds a step that no encoder writes");
    store(symbol, begin, n, symbols);
  });
}

void range64_check_symbols(const Tables& tables, const TensorView& symbols) {
  int64_t symbol[kRun];
  for_runs(symbols.size(), [&](int64_t begin, int64_t n) {
    load(symbols, begin, n, symbol);
    for (int64_t i = 0; i < n; ++i) {
      if (!is_codable(tables, symbol[i])) refuse_symbol(tables, begin + i, symbol[i]);
    }
  });
}

void range64_check_index(const Tables& tables, const TensorView& index) {
  int64_t table[kRun];
  for_runs(index.size(), [&](int64_t begin, int64_t n) {
    load(index, begin, n, table);
    for (int64_t i = 0; i < n; ++i) check_index(tables, begin + i, table[i]);
  });
}

void range64_put_bits(Encoder& encoder, const TensorView& values, int k) {
  put_each(
      values, span_text(0, static_cast<int64_t>((uint64_t{1} << k) - 1)),
      [&](int64_t v) { return v >= 0 && v >> k == 0; },
      [&](int64_t, int64_t v) { encoder.bits(static_cast<uint64_t>(v), k); });
}

void range64_put_uniform(Encoder& encoder, const TensorView& values, uint32_t count) {
  put_each(
      values, span_text(0, int64_t{count} - 1), [&](int64_t v) { return v >= 0 && v < count; },
      [&](int64_t, int64_t v) { encoder.uniform(static_cast<uint32_t>(v), count); });
}

void range64_put_bit(Encoder& encoder, const TensorView& values, const TensorView& p1, int P) {
  const Vector<int64_t> p = probabilities(p1, values.size(), P);
  put_each(
      values, "0 or 1", [](int64_t v) { return v == 0 || v == 1; },
      [&](int64_t i, int64_t v) { encoder.bit(v == 1, static_cast<uint32_t>(p[i]), P); });
}

void range64_put_exp_golomb(Encoder& encoder, const TensorView& values) {
  put_each(
      values, "0 or more", [](int64_t v) { return v >= 0; },
      [&](int64_t, int64_t v) { encoder.exp_golomb(static_cast<uint64_t>(v)); });
}

void range64_get_bits(RangeDecoder& decoder, const TensorView& values, int k) {
  get_each(decoder, values, [&](int64_t) { return static_cast<int64_t>(decoder.bits(k)); });
}

void range64_get_uniform(RangeDecoder& decoder, const TensorView& values, uint32_t count) {
  get_each(decoder, values, [&](int64_t) { return int64_t{decoder.uniform(count)}; });
}

void range64_get_bit(RangeDecoder& decoder, const TensorView& values, const TensorView& p1, int P) {
  const Vector<int64_t> p = probabilities(p1, values.size(), P);
  get_each(decoder, values,
           [&](int64_t i) { return int64_t{decoder.bit(static_cast<uint32_t>(p[i]), P)}; });
}

void range64_get_exp_golomb(RangeDecoder& decoder, const TensorView& values) {
  get_each(decoder, values, [&](int64_t) {
    const uint64_t value = decoder.exp_golomb();
    if (value >> 63 != 0) decoder.reject();
    return static_cast<int64_t>(value & INT64_MAX);
  });
}

uint32_t symbol_sum(const TensorView& symbols) {
  uint32_t sum = 0;
  int64_t run[kRun];
  for_runs(symbols.size(), [&](int64_t begin, int64_t n) {
    load(symbols, begin, n, run);
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t y = static_cast<uint32_t>(begin + i) * 0x9E3779B1u;
      sum += (static_cast<uint32_t>(run[i]) + 1) * ((y ^ y >> 15) | 1);
    }
  });
  return sum;
}

}  // namespace otcuda::cpu
