// SPDX-License-Identifier: Apache-2.0
// What the levels of symbol_runs.h offer: runs of any integer type read and written. No standard
// header but <cstdint>: files of one instruction set include this one.
#pragma once

#include <cstdint>

namespace otcuda::cpu {

constexpr int kIntegerTypes = 8;  // u8 i8 u16 i16 u32 i32 u64 i64, in this order
constexpr int64_t kRun = 1024;  // elements read, coded and written at a time; between runs we poll

// check_weight(first), check_weight(first + 1), ... and their sum: one for all blocks side by side.
struct CheckWeights {
  alignas(64) uint32_t weight[kRun];
  uint32_t total;
};

struct SymbolKernels {
  // to[i] = from[i], i < n. False if one lies outside low .. high; to then means nothing.
  using Read32 = bool (*)(const void* from, int64_t n, int64_t low, int64_t high, int32_t* to);
  using Read16 = bool (*)(const void* from, int64_t n, int64_t low, int64_t high, uint16_t* to);
  // False if one does not fit the type.
  using Write = bool (*)(const int32_t* from, int64_t n, void* to);
  // sum (symbol[i] + 1) check_weight(first + i), modulo 2^32.
  using Sum = uint32_t (*)(const void* symbol, int64_t n, uint32_t first);
  // The same on the way, added to *check: a loop of its own costs twice as much.
  using ReadSum = bool (*)(const void* from, int64_t n, int64_t low, int64_t high, int32_t* to,
                           uint32_t first, uint32_t* check);
  using WriteSum = bool (*)(const int32_t* from, int64_t n, void* to, const CheckWeights& weights,
                            uint32_t* check);
  using Weights = void (*)(uint32_t first, int64_t n, CheckWeights* weights);  // n <= kRun

  Read32 read_symbols[kIntegerTypes];
  Read16 read_tables[kIntegerTypes];
  Write write_symbols[kIntegerTypes];
  Sum sum[kIntegerTypes];
  ReadSum read_and_sum[kIntegerTypes];
  WriteSum write_and_sum[kIntegerTypes];  // of as many symbols as the weights are
  Weights weights;
};

extern const SymbolKernels symbol_kernels_portable;
extern const SymbolKernels symbol_kernels_avx2;
extern const SymbolKernels symbol_kernels_avx512;

}  // namespace otcuda::cpu
