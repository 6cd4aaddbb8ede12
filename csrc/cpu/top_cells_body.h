// SPDX-License-Identifier: Apache-2.0
// top_cells, once for all instruction sets. Lanes are samples, as in power_argmax_body.h; a tile of
// targets whose scores all stay at or below the thresholds costs one compare a vector.
//
// Entering a target costs as much as scoring dozens, and lists that start empty turn none of the
// first away. So the first targets are scored twice: the (K+1)-th largest of the maxima of their
// kGroups groups is a score that K + 1 of them reach, and nothing below it needs to enter.
//
// Lanes offers Vector, kLanes, kVectors, kTargets; fill, load, store, fma, add, max and min (a NaN
// in the first never comes through), above(a, b): a mask, set where a > b, bits(mask): bit k for
// lane k. Everything here has internal linkage: a copy built with AVX-512 must not become the one
// of everybody.
#pragma once

#include "cpu/top_cells_kernel.h"

namespace otcuda::cpu {
namespace {

// Eight numbers anywhere in memory; the compiler makes them what the instruction set has.
typedef float Floats __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(32), aligned(4), may_alias));

// Puts a target where it belongs in a list; of equal scores the earlier target comes first.
inline __attribute__((always_inline)) void insert(Shortlist* list, int K, float score, float inner,
                                                  int32_t index) {
  const Floats score8 = {score, score, score, score, score, score, score, score};
  const Floats inner8 = {inner, inner, inner, inner, inner, inner, inner, inner};
  const Ints index8 = {index, index, index, index, index, index, index, index};
  // From the last places to the first: what is written is not read again.
  for (int k = Shortlist::kBefore + K / 8 * 8; k >= Shortlist::kBefore; k -= 8) {
    const Floats s = *(const Floats*)(list->score + k), s1 = *(const Floats*)(list->score + k - 1);
    const Floats v = *(const Floats*)(list->inner + k), v1 = *(const Floats*)(list->inner + k - 1);
    const Ints i = *(const Ints*)(list->index + k), i1 = *(const Ints*)(list->index + k - 1);
    const Ints stays = s >= score, enters = s1 >= score;  // enters: where it does not stay
    *(Floats*)(list->score + k) = stays ? s : (enters ? score8 : s1);
    *(Floats*)(list->inner + k) = stays ? v : (enters ? inner8 : v1);
    *(Ints*)(list->index + k) = stays ? i : (enters ? index8 : i1);
  }
}

// Enters a target of the panel into the list of a sample.
inline __attribute__((always_inline)) void enter(const TopCellsPanel& panel, int64_t sample,
                                                 int64_t target, float inner, float score) {
  Shortlist* const list = panel.lists + sample;
  insert(list, panel.K, score, inner, int32_t(panel.first + target));
  // A list that is not full yet has -inf there, and a threshold from the first targets.
  const float last = list->score[Shortlist::kBefore + panel.K];
  if (last > panel.threshold[sample]) panel.threshold[sample] = last;
}

// `sums` are inner products, [kTargets][kSamples]. Hits are bits of a word, so that most of a tile
// is passed over without a branch; thresholds rise from word to word.
template <class Lanes, int kTargets>
__attribute__((noinline)) void enter_tile(const TopCellsPanel& panel, int64_t i,
                                          const float* sums) {
  constexpr int kSamples = Lanes::kLanes * Lanes::kVectors, kMany = 64 / Lanes::kLanes;
  constexpr int kTotal = kTargets * Lanes::kVectors;
  for (int first = 0; first < kTotal; first += kMany) {
    uint64_t hits = 0;
#pragma GCC unroll 16
    for (int k = 0; k < kMany; ++k) {
      const int v = first + k;
      if (v >= kTotal) break;
      const auto s = Lanes::add(Lanes::load(sums + v * Lanes::kLanes),
                                Lanes::fill(panel.h[i + v / Lanes::kVectors]));
      const auto threshold = Lanes::load(panel.threshold + v % Lanes::kVectors * Lanes::kLanes);
      hits |= uint64_t(Lanes::bits(Lanes::above(s, threshold))) << (k * Lanes::kLanes);
    }
    while (hits != 0) {
      const int place = first * Lanes::kLanes + __builtin_ctzll(hits);
      hits &= hits - 1;
      const int64_t target = i + place / kSamples;
      enter(panel, place % kSamples, target, sums[place], sums[place] + panel.h[target]);
    }
  }
}

// Inner products of all samples of a block with targets i .. i + kTargets.
template <class Lanes, int kTargets>
inline __attribute__((always_inline)) void products(
    const TopCellsPanel& panel, int64_t i,
    typename Lanes::Vector (&sum)[kTargets][Lanes::kVectors]) {
  using Vector = typename Lanes::Vector;
  constexpr int kVectors = Lanes::kVectors, kSamples = Lanes::kLanes * kVectors;
  const int64_t D = panel.D;
  const float* const y = panel.y + i * D;
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
}

// The larger of `highest` and the scores of kTargets targets, vector q of the samples.
template <class Lanes, int kTargets>
inline __attribute__((always_inline)) typename Lanes::Vector raised(
    const TopCellsPanel& panel, int64_t i,
    const typename Lanes::Vector (&sum)[kTargets][Lanes::kVectors], int q,
    typename Lanes::Vector highest) {
#pragma GCC unroll 8
  for (int t = 0; t < kTargets; ++t) {
    highest = Lanes::max(Lanes::add(sum[t][q], Lanes::fill(panel.h[i + t])), highest);
  }
  return highest;
}

template <class Lanes, int kTargets>
inline __attribute__((always_inline)) void store_products(
    const typename Lanes::Vector (&sum)[kTargets][Lanes::kVectors], float* to) {
#pragma GCC unroll 8
  for (int t = 0; t < kTargets; ++t) {
#pragma GCC unroll 4
    for (int q = 0; q < Lanes::kVectors; ++q) {
      Lanes::store(to + (t * Lanes::kVectors + q) * Lanes::kLanes, sum[t][q]);
    }
  }
}

template <class Lanes, int kTargets>
inline __attribute__((always_inline)) void tile(const TopCellsPanel& panel, int64_t i) {
  using Vector = typename Lanes::Vector;
  constexpr int kVectors = Lanes::kVectors, kSamples = Lanes::kLanes * kVectors;
  Vector sum[kTargets][kVectors];
  products<Lanes, kTargets>(panel, i, sum);
  uint32_t above = 0;
#pragma GCC unroll 4
  for (int q = 0; q < kVectors; ++q) {
    const Vector threshold = Lanes::load(panel.threshold + q * Lanes::kLanes);
    const Vector highest = raised<Lanes, kTargets>(panel, i, sum, q, threshold);
    above |= Lanes::bits(Lanes::above(highest, threshold));
  }
  if (__builtin_expect(above != 0, 0)) {
    alignas(64) float sums[kTargets * kSamples];
    store_products<Lanes, kTargets>(sum, sums);
    enter_tile<Lanes, kTargets>(panel, i, sums);
  }
}

// --- the first targets
// ----------------------------------------------------------------------------

constexpr int kGroups = 32;  // more than the longest list

// Sorts kGroups vectors of a stride, each lane for itself, largest first: Batcher's network.
template <class Lanes>
void sort_groups(float* vectors, int64_t stride) {
  for (int p = 1; p < kGroups; p *= 2) {
    for (int k = p; k >= 1; k /= 2) {
      for (int j = k % p; j + k < kGroups; j += 2 * k) {
        for (int i = 0; i < k && j + i + k < kGroups; ++i) {
          if ((i + j) / (2 * p) != (i + j + k) / (2 * p)) continue;
          float* const a = vectors + (i + j) * stride;
          float* const b = vectors + (i + j + k) * stride;
          const auto low = Lanes::load(a), high = Lanes::load(b);
          Lanes::store(a, Lanes::max(low, high));
          Lanes::store(b, Lanes::min(low, high));
        }
      }
    }
  }
}

// A little below t, whatever the rounding mode makes of tiny numbers.
inline float below(float t) {
  constexpr float kMost = 3.4028235e38f, kTiny = 1.1754944e-38f;
  const float size = t < 0.0f ? -t : t;
  return t > kMost ? kMost : t - (size * 1e-6f + kTiny);
}

// Enters the first targets of the first panel, whole tiles, and returns how many: their inner
// products lie in panel.first_products.
template <class Lanes>
int64_t enter_first(const TopCellsPanel& panel) {
  using Vector = typename Lanes::Vector;
  constexpr int kTargets = Lanes::kTargets, kVectors = Lanes::kVectors;
  constexpr int kSamples = Lanes::kLanes * kVectors;
  const int64_t some = panel.targets < kFirstTargets ? panel.targets : kFirstTargets;
  const int64_t tiles = some / kTargets;
  if (panel.first > 0 || tiles < 2 * kGroups) return 0;
  alignas(64) float highest[kGroups * kSamples];
  const Vector lowest = Lanes::fill(-__builtin_inff());
  for (int k = 0; k < kGroups * kSamples; k += Lanes::kLanes) Lanes::store(highest + k, lowest);
  for (int64_t k = 0; k < tiles; ++k) {
    Vector sum[kTargets][kVectors];
    products<Lanes, kTargets>(panel, k * kTargets, sum);
    store_products<Lanes, kTargets>(sum, panel.first_products + k * kTargets * kSamples);
    float* const group = highest + k % kGroups * kSamples;
#pragma GCC unroll 4
    for (int q = 0; q < kVectors; ++q) {
      float* const at = group + q * Lanes::kLanes;
      Lanes::store(at, raised<Lanes, kTargets>(panel, k * kTargets, sum, q, Lanes::load(at)));
    }
  }
  for (int q = 0; q < kSamples; q += Lanes::kLanes) sort_groups<Lanes>(highest + q, kSamples);
  for (int b = 0; b < kSamples; ++b) panel.threshold[b] = below(highest[panel.K * kSamples + b]);
  for (int64_t k = 0; k < tiles; ++k) {
    enter_tile<Lanes, kTargets>(panel, k * kTargets,
                                panel.first_products + k * kTargets * kSamples);
  }
  return tiles * kTargets;
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
  int64_t i = enter_first<Lanes>(panel);
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
        uint32_t mask = Lanes::bits(Lanes::above(s, Lanes::load(panel.threshold + sample)));
        if (mask == 0) continue;
        Lanes::store(inner, Lanes::add(Lanes::load(left + t * kHalves + l), other));
        Lanes::store(score, s);
        for (; mask != 0; mask &= mask - 1) {
          const int lane = __builtin_ctz(mask);
          enter(panel, sample + lane, i + t, inner[lane], score[lane]);
        }
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
