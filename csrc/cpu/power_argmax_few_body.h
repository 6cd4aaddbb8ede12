// SPDX-License-Identifier: Apache-2.0
// power_argmax of few samples, once for all instruction sets. Lanes are targets: squares of y are
// transposed on registers, and y passes once, as fast as memory gives it.
//
// Beyond power_argmax_body.h Lanes offers loadu and transpose(rows), kLanes rows of kLanes numbers.
#pragma once

#include "cpu/power_argmax_body.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kAheadBytes = 8192;  // what memory delivers while one of its lines is waited for

// Sums of kSamples samples with kLanes targets; reads up to kLanes - 1 numbers past each row.
template <class Lanes, int kSamples>
OTCUDA_INLINE void few_sums(const typename Lanes::Value* x, const typename Lanes::Value* y,
                            int64_t D, typename Lanes::Vector (&sum)[kSamples]) {
  using Value = typename Lanes::Value;
  constexpr int kLanes = Lanes::kLanes;
#pragma GCC unroll 8
  for (int b = 0; b < kSamples; ++b) sum[b] = Lanes::fill(Value(0));
  for (int64_t d = 0; d < D; d += kLanes) {
    typename Lanes::Vector rows[kLanes];
#pragma GCC unroll 16
    for (int k = 0; k < kLanes; ++k) {
      rows[k] = Lanes::loadu(y + k * D + d);
      // Lines in the order of memory, not of use: up to 8 % faster.
      __builtin_prefetch(reinterpret_cast<const char*>(y + (d + k) * kLanes) + kAheadBytes);
    }
    Lanes::transpose(rows);
#pragma GCC unroll 16
    for (int k = 0; k < kLanes; ++k) {
      if (k >= D - d) break;
#pragma GCC unroll 8
      for (int b = 0; b < kSamples; ++b) {
        sum[b] = Lanes::fma(Lanes::fill(x[b * D + d + k]), rows[k], sum[b]);
      }
    }
  }
}

template <class Lanes, int kSamples>
OTCUDA_INLINE void few_tile(const ArgmaxFew<typename Lanes::Value>& p,
                            const typename Lanes::Value* y, const typename Lanes::Value* h,
                            int64_t i) {
  typename Lanes::Vector sum[kSamples];
  few_sums<Lanes, kSamples>(p.x, y, p.D, sum);
  const auto heights = Lanes::loadu(h);
  const auto here = Lanes::places(p.first + i);
#pragma GCC unroll 8
  for (int b = 0; b < kSamples; ++b) {
    const auto best = Lanes::load(p.best + b * kFewLanes);
    const auto highest = Lanes::max(Lanes::add(sum[b], heights), best);
    Lanes::keep_place(highest, best, here, p.place + b * kFewLanes);
    Lanes::store(p.best + b * kFewLanes, highest);
  }
}

// The last targets, padded by some that are dead, where rows may be read past their end.
template <class Lanes, int kSamples>
void few_last(const ArgmaxFew<typename Lanes::Value>& p, int64_t i, int64_t count) {
  using Value = typename Lanes::Value;
  Value heights[Lanes::kLanes];
  for (int k = 0; k < Lanes::kLanes; ++k) {
    heights[k] = k < count ? p.h[i + k] : -Value(__builtin_inff());
    for (int64_t d = 0; d < p.D; ++d) p.spare[k * p.D + d] = k < count ? p.y[(i + k) * p.D + d] : 0;
  }
  few_tile<Lanes, kSamples>(p, p.spare, heights, i);
}

template <class Lanes, int kSamples>
void few_panel(const ArgmaxFew<typename Lanes::Value>& p) {
  constexpr int kLanes = Lanes::kLanes;
  const int64_t over = (p.D + kLanes - 1) / kLanes * kLanes - p.D;
  int64_t i = 0;
  for (; i + kLanes <= p.targets && (i + kLanes) * p.D + over <= p.readable; i += kLanes) {
    few_tile<Lanes, kSamples>(p, p.y + i * p.D, p.h + i, i);
  }
  for (; i < p.targets; i += kLanes) {
    few_last<Lanes, kSamples>(p, i, p.targets - i < kLanes ? p.targets - i : kLanes);
  }
}

// Samples beyond p.samples may be computed; there is room for them.
template <class Lanes>
void few(const ArgmaxFew<typename Lanes::Value>& p) {
  if (p.samples <= 1) return few_panel<Lanes, 1>(p);
  if (p.samples <= 2) return few_panel<Lanes, 2>(p);
  if (p.samples <= 4) return few_panel<Lanes, 4>(p);
  few_panel<Lanes, kFewSamples>(p);
}

template <class Lanes>
constexpr ArgmaxKernel<typename Lanes::Value> kernel_with_few() {
  ArgmaxKernel<typename Lanes::Value> kernel = kernel_of<Lanes>();
  kernel.few = &few<Lanes>;
  kernel.few_lanes = Lanes::kLanes;
  kernel.few_most = kernel.samples * 3 / 8;
  return kernel;
}

}  // namespace
}  // namespace otcuda::cpu
