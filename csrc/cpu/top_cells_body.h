// SPDX-License-Identifier: Apache-2.0
// top_cells, once for all instruction sets. Lanes are samples, as in power_argmax_body.h; a tile of
// targets whose scores all stay at or below the thresholds costs one compare a vector.
//
// Lanes offers Vector, kLanes, kVectors, kTargets; fill, load, loadu, store, fma, add, max (NaN
// first never wins), above(a, b): a mask, set where a > b, bits(mask): bit k for lane k. Everything
// here has internal linkage: a copy built with AVX-512 must not become the one of everybody.
#pragma once

#include "cpu/top_cells_kernel.h"

namespace otcuda::cpu {
namespace {

// Eight numbers anywhere in memory; the compiler makes them what the instruction set has.
typedef float Floats __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(32), aligned(4), may_alias));

// Puts a target where it belongs in a list; of equal scores the earlier target comes first.
inline __attribute__((always_inline)) void insert(Shortlist* list, float score, float inner,
                                                  int32_t index) {
  const Floats score8 = {score, score, score, score, score, score, score, score};
  const Floats inner8 = {inner, inner, inner, inner, inner, inner, inner, inner};
  const Ints index8 = {index, index, index, index, index, index, index, index};
  // From the last places to the first: what is written is not read again.
  for (int k = Shortlist::kBefore + Shortlist::kRoom - 8; k >= Shortlist::kBefore; k -= 8) {
    const Floats s = *(const Floats*)(list->score + k), s1 = *(const Floats*)(list->score + k - 1);
    const Floats v = *(const Floats*)(list->inner + k), v1 = *(const Floats*)(list->inner + k - 1);
    const Ints i = *(const Ints*)(list->index + k), i1 = *(const Ints*)(list->index + k - 1);
    const Ints stays = s >= score, enters = s1 >= score;  // enters: where it does not stay
    *(Floats*)(list->score + k) = stays ? s : (enters ? score8 : s1);
    *(Floats*)(list->inner + k) = stays ? v : (enters ? inner8 : v1);
    *(Ints*)(list->index + k) = stays ? i : (enters ? index8 : i1);
  }
}

// Enters one target into the lists of the lanes in `mask`.
inline __attribute__((always_inline)) void enter(const TopCellsPanel& panel, uint32_t mask,
                                                 int64_t first_sample, int64_t target,
                                                 const float* inner, const float* score) {
  while (mask != 0) {
    const int lane = __builtin_ctz(mask);
    mask &= mask - 1;
    Shortlist* const list = panel.lists + first_sample + lane;
    insert(list, score[lane], inner[lane], int32_t(panel.first + target));
    panel.threshold[first_sample + lane] = list->score[Shortlist::kBefore + panel.K];
  }
}

// `sums` are inner products, [kTargets][kSamples].
template <class Lanes, int kTargets>
__attribute__((noinline)) void enter_tile(const TopCellsPanel& panel, int64_t i,
                                          const float* sums) {
  constexpr int kSamples = Lanes::kLanes * Lanes::kVectors;
  alignas(64) float score[Lanes::kLanes];
  for (int q = 0; q < kSamples; q += Lanes::kLanes) {
    for (int t = 0; t < kTargets; ++t) {
      const float* const inner = sums + t * kSamples + q;
      const auto s = Lanes::add(Lanes::load(inner), Lanes::fill(panel.h[i + t]));
      const uint32_t mask = Lanes::bits(Lanes::above(s, Lanes::load(panel.threshold + q)));
      if (mask == 0) continue;
      Lanes::store(score, s);
      enter(panel, mask, q, i + t, inner, score);
    }
  }
}

template <class Lanes, int kTargets>
inline __attribute__((always_inline)) void tile(const TopCellsPanel& panel, int64_t i) {
  using Vector = typename Lanes::Vector;
  constexpr int kVectors = Lanes::kVectors, kSamples = Lanes::kLanes * kVectors;
  const int64_t D = panel.D;
  const float* const y = panel.y + i * D;
  Vector sum[kTargets][kVectors];
#pragma GCC unroll 8
  for (int t = 0; t < kTargets; ++t) {
#pragma GCC unroll 4
    for (int q = 0; q < kVectors; ++q) sum[t][q] = Lanes::fill(0.0f);
  }
  const float* x = panel.x;
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
  uint32_t above = 0;
#pragma GCC unroll 4
  for (int q = 0; q < kVectors; ++q) {
    const Vector threshold = Lanes::load(panel.threshold + q * Lanes::kLanes);
    Vector highest = threshold;
#pragma GCC unroll 8
    for (int t = 0; t < kTargets; ++t) {
      highest = Lanes::max(Lanes::add(sum[t][q], Lanes::fill(panel.h[i + t])), highest);
    }
    above |= Lanes::bits(Lanes::above(highest, threshold));
  }
  if (__builtin_expect(above != 0, 0)) {
    alignas(64) float sums[kTargets * kSamples];
#pragma GCC unroll 8
    for (int t = 0; t < kTargets; ++t) {
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) {
        Lanes::store(sums + t * kSamples + q * Lanes::kLanes, sum[t][q]);
      }
    }
    enter_tile<Lanes, kTargets>(panel, i, sums);
  }
}

template <class Lanes, int kTargets>
inline void last_tile(const TopCellsPanel& panel, int64_t i) {
  if constexpr (kTargets > 0) {
    if (panel.targets - i == kTargets) {
      tile<Lanes, kTargets>(panel, i);
    } else {
      last_tile<Lanes, kTargets - 1>(panel, i);
    }
  }
}

template <class Lanes>
void plain(const TopCellsPanel& panel) {
  int64_t i = 0;
  for (; i + Lanes::kTargets <= panel.targets; i += Lanes::kTargets) {
    tile<Lanes, Lanes::kTargets>(panel, i);
  }
  last_tile<Lanes, Lanes::kTargets - 1>(panel, i);
}

// --- product samples
// ------------------------------------------------------------------------------

constexpr int kProductTargets = 8;  // that meet all pairs of halves at a time

// Inner products of the halves, rows [from, to) of x, with kTargets targets: out
// [kTargets][kHalves].
template <class Lanes, int kTargets>
inline __attribute__((always_inline)) void half_products(const TopCellsPanel& panel, int64_t i,
                                                         int64_t from, int64_t to, float* out) {
  using Vector = typename Lanes::Vector;
  constexpr int kVectors = kHalves / Lanes::kLanes;
  Vector sum[kTargets][kVectors];
#pragma GCC unroll 8
  for (int t = 0; t < kTargets; ++t) {
#pragma GCC unroll 4
    for (int q = 0; q < kVectors; ++q) sum[t][q] = Lanes::fill(0.0f);
  }
  for (int64_t d = from; d < to; ++d) {
    Vector half[kVectors];
#pragma GCC unroll 4
    for (int q = 0; q < kVectors; ++q)
      half[q] = Lanes::load(panel.x + d * kHalves + q * Lanes::kLanes);
#pragma GCC unroll 8
    for (int t = 0; t < kTargets; ++t) {
      const Vector target = Lanes::fill(panel.y[(i + t) * panel.D + d]);
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) sum[t][q] = Lanes::fma(half[q], target, sum[t][q]);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTargets; ++t) {
#pragma GCC unroll 4
    for (int q = 0; q < kVectors; ++q)
      Lanes::store(out + t * kHalves + q * Lanes::kLanes, sum[t][q]);
  }
}

// Targets i .. i + kTargets against all pairs. Samples are [right][left] here, so that left halves
// lie side by side.
template <class Lanes, int kTargets>
inline __attribute__((always_inline)) void product_tile(const TopCellsPanel& panel, int64_t i) {
  using Vector = typename Lanes::Vector;
  constexpr int kStep = kTargets % Lanes::kHalfTargets == 0 ? Lanes::kHalfTargets : 1;
  alignas(64) float left[kTargets * kHalves], right[kTargets * kHalves], raised[kTargets * kHalves];
  for (int t = 0; t < kTargets; t += kStep) {
    half_products<Lanes, kStep>(panel, i + t, 0, panel.L, left + t * kHalves);
    half_products<Lanes, kStep>(panel, i + t, panel.L, panel.D, right + t * kHalves);
    for (int k = t * kHalves; k < (t + kStep) * kHalves; ++k) {
      raised[k] = left[k] + panel.h[i + k / kHalves];
    }
  }
  for (int l = 0; l < kHalves; l += Lanes::kLanes) {
    Vector side[kTargets];
#pragma GCC unroll 8
    for (int t = 0; t < kTargets; ++t) side[t] = Lanes::load(raised + t * kHalves + l);
    for (int r = 0; r < kHalves; ++r) {
      const int sample = r * kHalves + l;
      const Vector threshold = Lanes::load(panel.threshold + sample);
      Vector highest = threshold;
#pragma GCC unroll 8
      for (int t = 0; t < kTargets; ++t) {
        highest = Lanes::max(Lanes::add(side[t], Lanes::fill(right[t * kHalves + r])), highest);
      }
      if (__builtin_expect(Lanes::above(highest, threshold) == 0, 1)) continue;
      for (int t = 0; t < kTargets; ++t) {
        alignas(64) float inner[Lanes::kLanes], score[Lanes::kLanes];
        const Vector other = Lanes::fill(right[t * kHalves + r]);
        const Vector s = Lanes::add(side[t], other);
        const uint32_t mask = Lanes::bits(Lanes::above(s, Lanes::load(panel.threshold + sample)));
        if (mask == 0) continue;
        Lanes::store(inner, Lanes::add(Lanes::load(left + t * kHalves + l), other));
        Lanes::store(score, s);
        enter(panel, mask, sample, i + t, inner, score);
      }
    }
  }
}

template <class Lanes>
void product(const TopCellsPanel& panel) {
  int64_t i = 0;
  for (; i + kProductTargets <= panel.targets; i += kProductTargets) {
    product_tile<Lanes, kProductTargets>(panel, i);
  }
  for (; i < panel.targets; ++i) product_tile<Lanes, 1>(panel, i);
}

template <class Lanes>
TopCellsKernels kernels_of() {
  return {Lanes::kLanes * Lanes::kVectors, &plain<Lanes>, &product<Lanes>};
}

}  // namespace
}  // namespace otcuda::cpu
