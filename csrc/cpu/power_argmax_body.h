// SPDX-License-Identifier: Apache-2.0
// power_argmax, once for all instruction sets. Lanes are samples: a register tile holds kTargets x
// kVectors running sums, each target is broadcast from row-major y, so y is never packed or copied.
//
// Lanes offers Value, Vector, kLanes, kVectors, kTargets; fill, load, store, fma, add, and
//   max(a, b)        b where either is NaN, so a NaN score (given first) never replaces a best
//   not_above(a, b)  whether a <= b in every lane; NaN is not
//   improve(score, place, &best, &index)  power_argmax_beats in every lane
// Everything here has internal linkage: a copy built with AVX-512 must not become the one of
// everybody.
#pragma once

#include "common/power_argmax.h"
#include "cpu/power_argmax_kernel.h"

namespace otcuda::cpu {
namespace {

template <class Lanes>
using ArgmaxIndexOf = typename ArgmaxIndex<typename Lanes::Value>::Type;

// The rule of power_argmax_beats; needed about log(targets) times a sample.
template <class Lanes, int kTargets>
__attribute__((noinline)) void improve(const typename Lanes::Value* scores, int64_t first,
                                       typename Lanes::Value* best, ArgmaxIndexOf<Lanes>* index) {
  constexpr int kSamples = Lanes::kLanes * Lanes::kVectors;
  for (int q = 0; q < kSamples; q += Lanes::kLanes) {
    auto best_q = Lanes::load(best + q);
    auto index_q = Lanes::load_index(index + q);
    for (int t = 0; t < kTargets; ++t) {
      Lanes::improve(Lanes::load(scores + t * kSamples + q), first + t, &best_q, &index_q);
    }
    Lanes::store(best + q, best_q);
    Lanes::store_index(index + q, index_q);
  }
}

template <class Lanes, int kTargets>
inline __attribute__((always_inline)) void tile(const ArgmaxPanel<typename Lanes::Value>& panel,
                                                int64_t i) {
  using Value = typename Lanes::Value;
  using Vector = typename Lanes::Vector;
  constexpr int kVectors = Lanes::kVectors, kSamples = Lanes::kLanes * kVectors;
  const int64_t D = panel.D;
  const Value* const y = panel.y + i * D;
  Vector sum[kTargets][kVectors];
#pragma GCC unroll 8
  for (int t = 0; t < kTargets; ++t) {
#pragma GCC unroll 4
    for (int q = 0; q < kVectors; ++q) sum[t][q] = Lanes::fill(Value(0));
  }
  const Value* x = panel.x;
  for (int64_t d = 0; d < D; ++d, x += kSamples) {
    Vector samples[kVectors];
#pragma GCC unroll 4
    for (int q = 0; q < kVectors; ++q) samples[q] = Lanes::load(x + q * Lanes::kLanes);
#pragma GCC unroll 8
    for (int t = 0; t < kTargets; ++t) {
      const Vector target = Lanes::fill(y[t * D + d]);
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) sum[t][q] = Lanes::fma(samples[q], target, sum[t][q]);
    }
  }
  bool settled = true;
#pragma GCC unroll 4
  for (int q = 0; q < kVectors; ++q) {
    const Vector best = Lanes::load(panel.best + q * Lanes::kLanes);
    Vector highest = best;
#pragma GCC unroll 8
    for (int t = 0; t < kTargets; ++t) {
      sum[t][q] =
          Lanes::add(sum[t][q], Lanes::fill(panel.h[i + t]));  // last: see docs/power_argmax.md
      highest = Lanes::max(sum[t][q], highest);
    }
    settled &= Lanes::not_above(highest, best);
  }
  if (__builtin_expect(!settled, 0)) {
    alignas(64) Value scores[kTargets * kSamples];
#pragma GCC unroll 8
    for (int t = 0; t < kTargets; ++t) {
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) {
        Lanes::store(scores + t * kSamples + q * Lanes::kLanes, sum[t][q]);
      }
    }
    improve<Lanes, kTargets>(scores, panel.first + i, panel.best, panel.index);
  }
}

// The targets left after whole tiles: 0 .. kTargets of them.
template <class Lanes, int kTargets>
inline void last_tile(const ArgmaxPanel<typename Lanes::Value>& panel, int64_t i) {
  if constexpr (kTargets > 0) {
    if (panel.targets - i == kTargets) {
      tile<Lanes, kTargets>(panel, i);
    } else {
      last_tile<Lanes, kTargets - 1>(panel, i);
    }
  }
}

template <class Lanes>
void panel(const ArgmaxPanel<typename Lanes::Value>& panel) {
  int64_t i = 0;
  for (; i + Lanes::kTargets <= panel.targets; i += Lanes::kTargets) {
    tile<Lanes, Lanes::kTargets>(panel, i);
  }
  last_tile<Lanes, Lanes::kTargets - 1>(panel, i);
}

template <class Lanes>
constexpr ArgmaxKernel<typename Lanes::Value> kernel_of() {
  return {Lanes::kLanes * Lanes::kVectors, Lanes::kTargets, &panel<Lanes>};
}

}  // namespace
}  // namespace otcuda::cpu
