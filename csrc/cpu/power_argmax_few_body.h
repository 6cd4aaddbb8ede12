// SPDX-License-Identifier: Apache-2.0
// power_argmax of few samples, once for all instruction sets: y passes once, as fast as memory
// gives it. For a handful lanes are targets, and four columns of y at a time are brought together
// on registers; for more, lanes are samples as in power_argmax_body.h, in blocks of fewer.
//
// Beyond power_argmax_body.h Lanes offers loadu, kFewTiles (that share what is loaded of a sample,
// where there are many), columns(y, D, c), the first four coordinates of kLanes rows, and both,
// first_of, second_of.
#pragma once

#include "cpu/power_argmax_body.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kAheadBytes = 8192;  // what memory delivers while one of its lines is waited for
constexpr int kManyOfFew = 4;          // samples beyond which tiles share them

// Coordinates d .. d + 3 of x and of kTiles kLanes rows; kWhole: the rows have all four.
template <class Lanes, int kSamples, int kTiles, bool kWhole>
OTCUDA_INLINE void few_step(const typename Lanes::Value* x, const typename Lanes::Value* y,
                            int64_t D, int64_t d, typename Lanes::Vector (&sum)[kTiles][kSamples]) {
  typename Lanes::Vector column[kTiles][4];
#pragma GCC unroll 2
  for (int q = 0; q < kTiles; ++q) Lanes::columns(y + q * Lanes::kLanes * D + d, D, column[q]);
  // Lines in the order of memory, not of use: up to 8 % faster.
  constexpr int kBytes = 4 * kTiles * Lanes::kLanes * int(sizeof(*y));
  const auto* const next = reinterpret_cast<const char*>(y + d * kTiles * Lanes::kLanes);
#pragma GCC unroll 8
  for (int k = 0; k < kBytes; k += 64) __builtin_prefetch(next + k + kTiles * kAheadBytes);
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    if (!kWhole && k >= D - d) break;
#pragma GCC unroll 8
    for (int b = 0; b < kSamples; ++b) {
      const auto sample = Lanes::fill(x[b * D + d + k]);
#pragma GCC unroll 2
      for (int q = 0; q < kTiles; ++q) sum[q][b] = Lanes::fma(sample, column[q][k], sum[q][b]);
    }
  }
}

// Samples with kTiles kLanes targets; reads up to three numbers past each row.
template <class Lanes, int kSamples, int kTiles>
OTCUDA_INLINE void few_tile(const ArgmaxFew<typename Lanes::Value>& p,
                            const typename Lanes::Value* y, const typename Lanes::Value* h,
                            int64_t i) {
  typename Lanes::Vector sum[kTiles][kSamples];
#pragma GCC unroll 16
  for (int k = 0; k < kTiles * kSamples; ++k) sum[k / kSamples][k % kSamples] = Lanes::fill(0);
  int64_t d = 0;
  for (; d + 4 <= p.D; d += 4) few_step<Lanes, kSamples, kTiles, true>(p.x, y, p.D, d, sum);
  if (d < p.D) few_step<Lanes, kSamples, kTiles, false>(p.x, y, p.D, d, sum);
#pragma GCC unroll 2
  for (int q = 0; q < kTiles; ++q) {
    const auto heights = Lanes::loadu(h + q * Lanes::kLanes);
    const auto here = Lanes::places(p.first + i + q * Lanes::kLanes);
#pragma GCC unroll 8
    for (int b = 0; b < kSamples; ++b) {
      const auto best = Lanes::load(p.best + b * kFewLanes);
      const auto highest = Lanes::max(Lanes::add(sum[q][b], heights), best);
      Lanes::keep_place(highest, best, here, p.place + b * kFewLanes);
      Lanes::store(p.best + b * kFewLanes, highest);
    }
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
  few_tile<Lanes, kSamples, 1>(p, p.spare, heights, i);
}

template <class Lanes, int kSamples>
void few_panel(const ArgmaxFew<typename Lanes::Value>& p) {
  constexpr int kTiles = kSamples > kManyOfFew ? Lanes::kFewTiles : 1;
  constexpr int kLanes = Lanes::kLanes, kRows = kTiles * kLanes;
  const int64_t over = (p.D + 3) / 4 * 4 - p.D;
  const int64_t readable = (p.readable - over) / p.D;  // targets
  const int64_t targets = p.targets < readable ? p.targets : readable;
  int64_t i = 0;
  for (; i + kRows <= targets; i += kRows) {
    few_tile<Lanes, kSamples, kTiles>(p, p.y + i * p.D, p.h + i, i);
  }
  for (; i + kLanes <= targets; i += kLanes) {
    few_tile<Lanes, kSamples, 1>(p, p.y + i * p.D, p.h + i, i);
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

// Two dimensions of a tile. Where it has one vector of samples, a load for each multiply-add is
// what limits: kPairs of its targets load both numbers at once, and have them apart by shuffles.
template <class Lanes>
OTCUDA_INLINE void narrow_steps(const ArgmaxPlace<Lanes>& p, int64_t d,
                                ArgmaxSums<Lanes, Lanes::kTargets>& sum) {
  constexpr int kTargets = Lanes::kTargets, kVectors = Lanes::kVectors, kPairs = Lanes::kPairs;
  const auto* const x = p.x + d * samples_of<Lanes>;
  if constexpr (kPairs > 0) {
#pragma GCC unroll 8
    for (int t = 0; t < kPairs; ++t) {
      const auto pair = Lanes::both(p.y + t * p.D + d);
      sum[t][0] = Lanes::fma(Lanes::load(x), Lanes::first_of(pair), sum[t][0]);
      sum[t][0] = Lanes::fma(Lanes::load(x + Lanes::kLanes), Lanes::second_of(pair), sum[t][0]);
    }
  }
#pragma GCC unroll 2
  for (int k = 0; k < 2; ++k) {
#pragma GCC unroll 16
    for (int t = kPairs; t < kTargets; ++t) {
      const auto target = Lanes::fill(p.y[t * p.D + d + k]);
#pragma GCC unroll 2
      for (int q = 0; q < kVectors; ++q) {
        const auto samples = Lanes::load(x + (k * kVectors + q) * Lanes::kLanes);
        sum[t][q] = Lanes::fma(samples, target, sum[t][q]);
      }
    }
  }
  constexpr int kBytes = 2 * kTargets * int(sizeof(*p.y));
  const auto* const next = reinterpret_cast<const char*>(p.y + d * kTargets);
#pragma GCC unroll 4
  for (int k = 0; k < kBytes; k += 64) __builtin_prefetch(next + k + kAheadBytes);
}

template <class Lanes>
void narrow_panel(const ArgmaxPanel<typename Lanes::Value>& panel) {
  constexpr int kTargets = Lanes::kTargets;
  ArgmaxPlace<Lanes> p{
      panel.x, panel.y, panel.h, panel.best, panel.place, panel.D, Lanes::places(panel.first)};
  int64_t targets = panel.targets;
  typename Lanes::Vector highest[Lanes::kVectors];  // from tile to tile, not through memory
  load_best<Lanes>(p, highest);
  for (; targets >= kTargets; targets -= kTargets) {
    ArgmaxSums<Lanes, kTargets> sum;
#pragma GCC unroll 24
    for (int k = 0; k < kTargets * Lanes::kVectors; ++k) {
      sum[k / Lanes::kVectors][k % Lanes::kVectors] = Lanes::fill(0);
    }
    int64_t d = 0;
    for (; d + 2 <= p.D; d += 2) narrow_steps<Lanes>(p, d, sum);
    if (d < p.D) step<Lanes, kTargets, false>(p, d, sum);
    raise<Lanes, kTargets>(p, sum, highest);
    p.advance(kTargets);
  }
  last_tile<Lanes, kTargets - 1, 0>(p, targets);
}

template <class Lanes, class Narrow>
constexpr ArgmaxKernel<typename Lanes::Value> kernel_with_few() {
  ArgmaxKernel<typename Lanes::Value> kernel = kernel_of<Lanes>();
  kernel.few = &few<Lanes>;
  kernel.few_lanes = Lanes::kLanes;
  kernel.narrow = {samples_of<Narrow>, &narrow_panel<Narrow>, &settle<Narrow>};
  return kernel;
}

}  // namespace
}  // namespace otcuda::cpu
