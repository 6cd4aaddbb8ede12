// SPDX-License-Identifier: Apache-2.0
// Runs of integers, as loops that the compiler turns into vectors of the file's instruction set.
#pragma once

#include "common/rans32.h"
#include "cpu/symbol_runs_kernels.h"

namespace otcuda::cpu {
namespace {

template <class From>
bool within(From least, From most, int64_t low, int64_t high) {
  if (From(-1) < From(0))
    return static_cast<int64_t>(least) >= low && static_cast<int64_t>(most) <= high;
  const uint64_t floor = low > 0 ? static_cast<uint64_t>(low) : 0;
  return high >= 0 && static_cast<uint64_t>(least) >= floor &&
         static_cast<uint64_t>(most) <= static_cast<uint64_t>(high);
}

// Without a branch an element: with one, reading costs half as much as coding.
template <class From, class To>
bool read_run(const void* data, int64_t n, int64_t low, int64_t high, To* __restrict to) {
  const From* __restrict from = static_cast<const From*>(data);
  if (n == 0) return true;
  From least = from[0], most = from[0];
  for (int64_t i = 0; i < n; ++i) {
    const From value = from[i];
    least = value < least ? value : least;
    most = value > most ? value : most;
    to[i] = static_cast<To>(value);
  }
  return within(least, most, low, high);
}

template <class To>
bool write_run(const int32_t* __restrict from, int64_t n, void* data) {
  To* __restrict to = static_cast<To*>(data);
  constexpr bool kSigned = To(-1) < To(0);
  constexpr int kBits = sizeof(To) >= 4 ? 31 : 8 * sizeof(To);  // of wide ones only the sign counts
  constexpr uint32_t kLift = kSigned ? 1u << (kBits - 1) : 0;   // what fits, to 0 .. 2^kBits - 1
  uint32_t met = 0;
  for (int64_t i = 0; i < n; ++i) {
    to[i] = static_cast<To>(from[i]);
    met |= static_cast<uint32_t>(from[i]) + kLift;
  }
  return met >> kBits == 0 || (kSigned && sizeof(To) >= 4);
}

template <class From>
uint32_t sum_of(const void* data, int64_t n, uint32_t first) {
  const From* from = static_cast<const From*>(data);
  uint32_t total = 0, place = first;
  for (int64_t i = 0; i < n; ++i) {
    total += (static_cast<uint32_t>(from[i]) + 1) * check_weight(place++);
  }
  return total;
}

template <class... T>
constexpr SymbolKernels kernels_of() {
  return {
      {&read_run<T, int32_t>...}, {&read_run<T, uint16_t>...}, {&write_run<T>...}, {&sum_of<T>...}};
}

constexpr SymbolKernels kSymbolKernels =
    kernels_of<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t>();

}  // namespace
}  // namespace otcuda::cpu
