// SPDX-License-Identifier: Apache-2.0
// What the levels of symbol_runs.h offer: runs of any integer type read and written. No standard
// header but <cstdint>: files of one instruction set include this one.
#pragma once

#include <cstdint>

namespace otcuda::cpu {

constexpr int kIntegerTypes = 8;  // u8 i8 u16 i16 u32 i32 u64 i64, in this order

struct SymbolKernels {
  // to[i] = from[i], i < n. False if one lies outside low .. high; to then means nothing.
  using Read32 = bool (*)(const void* from, int64_t n, int64_t low, int64_t high, int32_t* to);
  using Read16 = bool (*)(const void* from, int64_t n, int64_t low, int64_t high, uint16_t* to);
  // False if one does not fit the type.
  using Write = bool (*)(const int32_t* from, int64_t n, void* to);
  // sum (symbol[i] + 1) check_weight(first + i), modulo 2^32.
  using Sum = uint32_t (*)(const void* symbol, int64_t n, uint32_t first);

  Read32 read_symbols[kIntegerTypes];
  Read16 read_tables[kIntegerTypes];
  Write write_symbols[kIntegerTypes];
  Sum sum[kIntegerTypes];
};

extern const SymbolKernels symbol_kernels_portable;
extern const SymbolKernels symbol_kernels_avx2;
extern const SymbolKernels symbol_kernels_avx512;

}  // namespace otcuda::cpu
