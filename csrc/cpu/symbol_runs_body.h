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

// The weights of symbols in a row, a product less each.
struct Weigher {
  uint32_t y;
  explicit Weigher(uint32_t first) : y(first * kCheckStep) {}
  uint32_t operator()() {
    const uint32_t weight = check_mixed(y);
    y += kCheckStep;
    return weight;
  }
};

// Rows of places that are summed each for itself: one chain would take half as long again.
void weights_of(uint32_t first, int64_t n, CheckWeights* weights) {
  constexpr int kRow = kRansLanes;
  uint32_t y[kRow], sums[kRow] = {};
  for (int k = 0; k < kRow; ++k) y[k] = (first + static_cast<uint32_t>(k)) * kCheckStep;
  uint32_t* const weight = weights->weight;
  int64_t i = 0;
  for (; i + kRow <= n; i += kRow) {
    for (int k = 0; k < kRow; ++k) {
      sums[k] += weight[i + k] = check_mixed(y[k]);
      y[k] += kRow * kCheckStep;
    }
  }
  uint32_t total = 0;
  for (int k = 0; k < kRow; ++k) total += sums[k];
  for (; i < n; ++i) total += weight[i] = check_weight(first + static_cast<uint32_t>(i));
  weights->total = total;
}

// Without a branch an element: with one, reading costs half as much as coding.
template <bool kSum, class From, class To>
OTCUDA_HD bool read_each(const void* data, int64_t n, int64_t low, int64_t high, To* __restrict to,
                         uint32_t first, uint32_t* check) {
  const From* __restrict from = static_cast<const From*>(data);
  if (n == 0) return true;
  From least = from[0], most = from[0];
  Weigher weigh(first);
  uint32_t total = 0;
  for (int64_t i = 0; i < n; ++i) {
    const From value = from[i];
    least = value < least ? value : least;
    most = value > most ? value : most;
    to[i] = static_cast<To>(value);
    if (kSum) total += (static_cast<uint32_t>(value) + 1) * weigh();
  }
  if (kSum) *check += total;
  return within(least, most, low, high);
}

template <class From, class To>
bool read_run(const void* data, int64_t n, int64_t low, int64_t high, To* to) {
  return read_each<false, From>(data, n, low, high, to, 0, nullptr);
}

template <class From>
bool read_and_sum(const void* data, int64_t n, int64_t low, int64_t high, int32_t* to,
                  uint32_t first, uint32_t* check) {
  return read_each<true, From>(data, n, low, high, to, first, check);
}

template <bool kSum, class To>
OTCUDA_HD bool write_each(const int32_t* __restrict from, int64_t n, void* data,
                          const CheckWeights* __restrict weights, uint32_t* check) {
  To* __restrict to = static_cast<To*>(data);
  constexpr bool kSigned = To(-1) < To(0);
  constexpr int kBits = sizeof(To) >= 4 ? 31 : 8 * sizeof(To);  // of wide ones only the sign counts
  constexpr uint32_t kLift = kSigned ? 1u << (kBits - 1) : 0;   // what fits, to 0 .. 2^kBits - 1
  uint32_t met = 0, total = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t lifted = static_cast<uint32_t>(from[i]) + kLift;
    to[i] = static_cast<To>(from[i]);
    met |= lifted;
    if (kSum) total += lifted * weights->weight[i];
  }
  if (kSum) *check += total + (1 - kLift) * weights->total;  // symbol + 1 = lifted + 1 - kLift
  return met >> kBits == 0 || (kSigned && sizeof(To) >= 4);
}

template <class To>
bool write_run(const int32_t* from, int64_t n, void* to) {
  return write_each<false, To>(from, n, to, nullptr, nullptr);
}

template <class To>
bool write_and_sum(const int32_t* from, int64_t n, void* to, const CheckWeights& weights,
                   uint32_t* check) {
  return write_each<true, To>(from, n, to, &weights, check);
}

template <class From>
uint32_t sum_of(const void* data, int64_t n, uint32_t first) {
  const From* from = static_cast<const From*>(data);
  Weigher weigh(first);
  uint32_t total = 0;
  for (int64_t i = 0; i < n; ++i) total += (static_cast<uint32_t>(from[i]) + 1) * weigh();
  return total;
}

template <class... T>
constexpr SymbolKernels kernels_of() {
  return {
      {&read_run<T, int32_t>...}, {&read_run<T, uint16_t>...}, {&write_run<T>...}, {&sum_of<T>...},
      {&read_and_sum<T>...},      {&write_and_sum<T>...},      &weights_of};
}

constexpr SymbolKernels kSymbolKernels =
    kernels_of<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t>();

}  // namespace
}  // namespace otcuda::cpu
