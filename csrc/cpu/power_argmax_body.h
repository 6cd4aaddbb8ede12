// SPDX-License-Identifier: Apache-2.0
// power_argmax, once for all instruction sets. Lanes are samples: a register tile holds kTargets x
// kVectors running sums, each target is broadcast from row-major y, so y is never packed or copied.
// No branch asks who won: a group of targets that beats the best leaves its place by a blend, and
// settle finds the winner in that group once, at the end.
//
// Lanes offers Value, Vector, Places, kLanes, kVectors, kTargets, kStreamD, kChunk, kGroupTiles;
// fill, load, store, mul, fma, add, places, next, and
//   max(a, b)  b where either is NaN, so a NaN score (given first) never replaces a best
//   keep_place(highest, best, here, to)  the place `here` where highest > best, else what is there
// Everything here has internal linkage: a copy built with AVX-512 must not become the one of
// everybody.
#pragma once

#include "common/power_argmax.h"
#include "cpu/power_argmax_kernel.h"

#ifndef OTCUDA_INLINE
#define OTCUDA_INLINE inline __attribute__((always_inline))
#endif

namespace otcuda::cpu {
namespace {

constexpr int kUnrolledD = 8;   // dimensions up to here have a tile of their own, without a loop
constexpr int kStripTiles = 8;  // tiles whose sums wait while a chunk of dimensions passes

template <class Lanes>
constexpr int samples_of = Lanes::kLanes * Lanes::kVectors;

// Targets of one place where samples stay on registers; elsewhere those of a tile.
template <class Lanes>
constexpr int stream_group = Lanes::kGroupTiles * Lanes::kTargets;

template <class Lanes, int kTargets>
using ArgmaxSums = typename Lanes::Vector[kTargets][Lanes::kVectors];

// Where a panel stands. By value: the compiler cannot know that storing a best changes no pointer.
template <class Lanes>
struct ArgmaxPlace {
  const typename Lanes::Value* x;
  const typename Lanes::Value* y;
  const typename Lanes::Value* h;
  typename Lanes::Value* best;
  typename ArgmaxPanel<typename Lanes::Value>::Index* place;
  int64_t D;
  typename Lanes::Places here;

  OTCUDA_INLINE void advance(int targets) {
    y += targets * D;
    h += targets;
    for (int k = 0; k < targets / Lanes::kTargets; ++k) here = Lanes::next(here);
  }
};

// All sums one dimension further. The first product is rounded alone: -0 may come out where the
// chain from +0 has +0, but no comparison sees that, and settle computes the winner's score anew.
template <class Lanes, int kTargets, bool kFirst>
OTCUDA_INLINE void step(const ArgmaxPlace<Lanes>& p, int64_t d, ArgmaxSums<Lanes, kTargets>& sum) {
  typename Lanes::Vector samples[Lanes::kVectors];
  const auto* const x = p.x + d * samples_of<Lanes>;
#pragma GCC unroll 4
  for (int q = 0; q < Lanes::kVectors; ++q) samples[q] = Lanes::load(x + q * Lanes::kLanes);
#pragma GCC unroll 8
  for (int t = 0; t < kTargets; ++t) {
    const auto target = Lanes::fill(p.y[t * p.D + d]);
#pragma GCC unroll 4
    for (int q = 0; q < Lanes::kVectors; ++q) {
      sum[t][q] =
          kFirst ? Lanes::mul(samples[q], target) : Lanes::fma(samples[q], target, sum[t][q]);
    }
  }
}

template <class Lanes>
OTCUDA_INLINE void load_best(const ArgmaxPlace<Lanes>& p,
                             typename Lanes::Vector (&highest)[Lanes::kVectors]) {
#pragma GCC unroll 4
  for (int q = 0; q < Lanes::kVectors; ++q) highest[q] = Lanes::load(p.best + q * Lanes::kLanes);
}

template <class Lanes>
OTCUDA_INLINE void keep_best(const ArgmaxPlace<Lanes>& p,
                             const typename Lanes::Vector (&highest)[Lanes::kVectors]) {
#pragma GCC unroll 4
  for (int q = 0; q < Lanes::kVectors; ++q) {
    const int at = q * Lanes::kLanes;
    Lanes::keep_place(highest[q], Lanes::load(p.best + at), p.here, p.place + at);
    Lanes::store(p.best + at, highest[q]);
  }
}

// The height comes last: see docs/power_argmax.md.
template <class Lanes, int kTargets>
OTCUDA_INLINE void raise(const ArgmaxPlace<Lanes>& p, const ArgmaxSums<Lanes, kTargets>& sum,
                         typename Lanes::Vector (&highest)[Lanes::kVectors]) {
#pragma GCC unroll 16
  for (int t = 0; t < kTargets; ++t) {
    const auto height = Lanes::fill(p.h[t]);
#pragma GCC unroll 4
    for (int q = 0; q < Lanes::kVectors; ++q) {
      highest[q] = Lanes::max(Lanes::add(sum[t][q], height), highest[q]);
    }
  }
  keep_best<Lanes>(p, highest);
}

template <class Lanes, int kTargets>
OTCUDA_INLINE void finish(const ArgmaxPlace<Lanes>& p, const ArgmaxSums<Lanes, kTargets>& sum) {
  typename Lanes::Vector highest[Lanes::kVectors];
  load_best<Lanes>(p, highest);
  raise<Lanes, kTargets>(p, sum, highest);
}

// kD: the dimension where it is known, else 0.
template <class Lanes, int kTargets, int kD>
OTCUDA_INLINE void tile(const ArgmaxPlace<Lanes>& p) {
  ArgmaxSums<Lanes, kTargets> sum;
  step<Lanes, kTargets, true>(p, 0, sum);
  if constexpr (kD > 0) {
#pragma GCC unroll 8
    for (int d = 1; d < kD; ++d) step<Lanes, kTargets, false>(p, d, sum);
  } else {
    for (int64_t d = 1; d < p.D; ++d) step<Lanes, kTargets, false>(p, d, sum);
  }
  finish<Lanes, kTargets>(p, sum);
}

// Low dimensions: samples and maxima stay on registers, and a group of targets passes one by one.
template <class Lanes, int kD>
OTCUDA_INLINE void stream(const ArgmaxPlace<Lanes>& p,
                          const typename Lanes::Vector (&x)[kD][Lanes::kVectors],
                          typename Lanes::Vector (&highest)[Lanes::kVectors]) {
#pragma GCC unroll 16
  for (int t = 0; t < stream_group<Lanes>; ++t) {
    typename Lanes::Vector sum[Lanes::kVectors];
#pragma GCC unroll 8
    for (int d = 0; d < kD; ++d) {
      const auto target = Lanes::fill(p.y[t * kD + d]);
#pragma GCC unroll 4
      for (int q = 0; q < Lanes::kVectors; ++q) {
        sum[q] = d == 0 ? Lanes::mul(x[d][q], target) : Lanes::fma(x[d][q], target, sum[q]);
      }
    }
    const auto height = Lanes::fill(p.h[t]);
#pragma GCC unroll 4
    for (int q = 0; q < Lanes::kVectors; ++q) {
      highest[q] = Lanes::max(Lanes::add(sum[q], height), highest[q]);
    }
  }
  keep_best<Lanes>(p, highest);
}

template <class Lanes, int kD>
OTCUDA_INLINE int64_t stream_groups(ArgmaxPlace<Lanes>& p, int64_t targets) {
  constexpr int kGroup = stream_group<Lanes>;
  typename Lanes::Vector x[kD][Lanes::kVectors];
#pragma GCC unroll 8
  for (int d = 0; d < kD; ++d) {
#pragma GCC unroll 4
    for (int q = 0; q < Lanes::kVectors; ++q) {
      x[d][q] = Lanes::load(p.x + (d * Lanes::kVectors + q) * Lanes::kLanes);
    }
  }
  typename Lanes::Vector highest[Lanes::kVectors];  // from group to group, not through memory
  load_best<Lanes>(p, highest);
  for (; targets >= kGroup; targets -= kGroup) {
    stream<Lanes, kD>(p, x, highest);
    p.advance(kGroup);
  }
  return targets;
}

// Dimensions [from, to) of a tile whose sums wait in memory in between. A function of its own: its
// loop has all the registers.
template <class Lanes>
__attribute__((noinline)) void chunk(const ArgmaxPlace<Lanes>& p, int64_t from, int64_t to,
                                     typename Lanes::Value* sums) {
  constexpr int kTargets = Lanes::kTargets, kVectors = Lanes::kVectors;
  ArgmaxSums<Lanes, kTargets> sum;
  if (from == 0) {
    step<Lanes, kTargets, true>(p, from++, sum);
  } else {
#pragma GCC unroll 24
    for (int v = 0; v < kTargets * kVectors; ++v) {
      sum[v / kVectors][v % kVectors] = Lanes::load(sums + v * Lanes::kLanes);
    }
  }
  for (int64_t d = from; d < to; ++d) step<Lanes, kTargets, false>(p, d, sum);
  if (to == p.D) {
    finish<Lanes, kTargets>(p, sum);
  } else {
#pragma GCC unroll 24
    for (int v = 0; v < kTargets * kVectors; ++v) {
      Lanes::store(sums + v * Lanes::kLanes, sum[v / kVectors][v % kVectors]);
    }
  }
}

// High dimensions: a chunk of the samples stays in L1 while a strip of targets passes.
template <class Lanes>
int64_t strips(ArgmaxPlace<Lanes>& p, int64_t targets) {
  alignas(64) typename Lanes::Value sums[kStripTiles * Lanes::kTargets * samples_of<Lanes>];
  while (targets >= Lanes::kTargets) {
    const int64_t whole = targets / Lanes::kTargets;
    const int tiles = whole < kStripTiles ? int(whole) : kStripTiles;
    for (int64_t from = 0; from < p.D; from += Lanes::kChunk) {
      const int64_t to = p.D - from < Lanes::kChunk ? p.D : from + Lanes::kChunk;
      ArgmaxPlace<Lanes> tile_of = p;
      for (int k = 0; k < tiles; ++k, tile_of.advance(Lanes::kTargets)) {
        chunk<Lanes>(tile_of, from, to, sums + k * Lanes::kTargets * samples_of<Lanes>);
      }
    }
    p.advance(tiles * Lanes::kTargets);
    targets -= tiles * Lanes::kTargets;
  }
  return targets;
}

// The targets left after whole tiles: 0 .. kTargets of them.
template <class Lanes, int kTargets, int kD>
OTCUDA_INLINE void last_tile(const ArgmaxPlace<Lanes>& p, int64_t targets) {
  if constexpr (kTargets > 0) {
    if (targets == kTargets) {
      tile<Lanes, kTargets, kD>(p);
    } else {
      last_tile<Lanes, kTargets - 1, kD>(p, targets);
    }
  }
}

template <class Lanes, int kD>
void panel_of(const ArgmaxPanel<typename Lanes::Value>& panel) {
  ArgmaxPlace<Lanes> p{panel.x,
                       panel.y,
                       panel.h,
                       panel.best,
                       panel.place,
                       kD > 0 ? kD : panel.D,
                       Lanes::places(panel.first)};
  int64_t targets = panel.targets;
  if constexpr (kD > 0 && kD <= Lanes::kStreamD) targets = stream_groups<Lanes, kD>(p, targets);
  if (kD == 0 && p.D > Lanes::kChunk) targets = strips<Lanes>(p, targets);
  for (; targets >= Lanes::kTargets; targets -= Lanes::kTargets) {
    tile<Lanes, Lanes::kTargets, kD>(p);
    p.advance(Lanes::kTargets);
  }
  last_tile<Lanes, Lanes::kTargets - 1, kD>(p, targets);
}

template <class Lanes, int kD = kUnrolledD>
void panel(const ArgmaxPanel<typename Lanes::Value>& p) {
  if constexpr (kD == 0) {
    panel_of<Lanes, 0>(p);
  } else {
    if (p.D == kD) {
      panel_of<Lanes, kD>(p);
    } else {
      panel<Lanes, kD - 1>(p);
    }
  }
}

// The chain of the contract for kGroup targets of each of some samples, side by side. What the best
// one scores is known, up to the sign of a zero: the winner is the lowest that has it, and no
// branch asks which. A group at the end is moved back to whole targets: those before it score less.
// kD: the dimension where it is known, else 0; kWhole: at least kGroup targets there are.
template <class Lanes, int kSamples, int kD, bool kWhole>
OTCUDA_INLINE void settle_some(const ArgmaxSettle<typename Lanes::Value>& s, int64_t b) {
  using Value = typename Lanes::Value;
  constexpr int kGroup = kSamples == 1 ? stream_group<Lanes> : Lanes::kTargets;
  constexpr int kChains = kGroup * kSamples;
  const int64_t D = kD > 0 ? kD : s.D, last_b = s.samples - 1, last = s.targets - 1;
  const int64_t last_group = kWhole ? s.targets - kGroup : 0;
  const Value *x[kSamples], *y[kSamples];
  Value score[kChains];
  int64_t first[kSamples];
#pragma GCC unroll 2
  for (int n = 0; n < kSamples; ++n) {
    const int64_t row = b + n < last_b ? b + n : last_b,
                  place = s.place[row] < 0 ? 0 : s.place[row];
    first[n] = place < last_group ? place : last_group;
    x[n] = s.x + row * D;
    y[n] = s.y + first[n] * D;
  }
#pragma GCC unroll 16
  for (int k = 0; k < kChains; ++k) score[k] = Value(0);
#pragma GCC unroll 8
  for (int64_t d = 0; d < D; ++d) {
#pragma GCC unroll 16
    for (int k = 0; k < kChains; ++k) {
      const int64_t t = kWhole || k % kGroup < last ? k % kGroup : last;
      score[k] = exact_fma(x[k / kGroup][d], y[k / kGroup][t * D + d], score[k]);
    }
  }
#pragma GCC unroll 2
  for (int n = 0; n < kSamples; ++n) {
    if (b + n > last_b || s.place[b + n] < 0) continue;
    const Value best = s.best[b + n];
    uint32_t has = 0;
#pragma GCC unroll 16
    for (int t = 0; t < kGroup; ++t) {
      const int64_t i = first[n] + (kWhole || t < last ? t : last);
      score[n * kGroup + t] += s.h[i];
      has |= uint32_t(score[n * kGroup + t] == best) << t;
    }
    const int winner = __builtin_ctz(has);
    s.value[b + n] = score[n * kGroup + winner];
    s.index[b + n] = first[n] + (kWhole || winner < last ? winner : last);
  }
}

template <class Lanes, int kD = (Lanes::kStreamD > 0 ? kUnrolledD : 0)>
void settle(const ArgmaxSettle<typename Lanes::Value>& s) {
  if constexpr (kD > 0) {
    if (s.D != kD) return settle<Lanes, kD - 1>(s);
  }
  constexpr int kSamples = kD > 0 && kD <= Lanes::kStreamD ? 1 : 2;
  const bool whole = s.targets >= (kSamples == 1 ? stream_group<Lanes> : Lanes::kTargets);
  for (int64_t b = 0; b < s.samples; b += kSamples) {
    whole ? settle_some<Lanes, kSamples, kD, true>(s, b)
          : settle_some<Lanes, kSamples, kD, false>(s, b);
  }
}

// For rows in which nothing exceeds -inf: the first target whose score is a number, or -1.
template <class Lanes>
int64_t first_number(const typename Lanes::Value* x, const typename Lanes::Value* y,
                     const typename Lanes::Value* h, int64_t targets, int64_t D) {
  for (int64_t i = 0; i < targets; ++i) {
    const auto score = power_argmax_score(x, y + i * D, h[i], D);
    if (score == score) return i;
  }
  return -1;
}

template <class Lanes>
constexpr ArgmaxKernel<typename Lanes::Value> kernel_of() {
  static_assert(kPanelUnit % stream_group<Lanes> == 0, "panels are whole tiles");
  return {{samples_of<Lanes>, &panel<Lanes>, &settle<Lanes>}, &first_number<Lanes>};
}

}  // namespace
}  // namespace otcuda::cpu
