// SPDX-License-Identifier: Apache-2.0
// power_screen, once for all instruction sets: products of small integers that bound the scores.
// Lanes are samples, as in power_argmax_body.h; a tile none of whose sums exceeds a threshold costs
// a maximum and a compare.
//
// Lanes offers Vector (of kLanes 32-bit integers or twice as many of 16 bits), kLanes, kVectors,
// kTargets; fill, load, store, add32, sub32, max32, and
//   dot(sum, x, y)   16-bit sums further by x[2 k] y[2 k] + x[2 k + 1] y[2 k + 1], x unsigned; if
//                    kWide 32-bit sums by four products
//   pairs(sum)       32-bit sums of two neighbours of 16 bits; not if kWide
//   whole(sum)       where kHalves, whose sums are float32 over products of bfloat16: integers
//   above(a, b)      a mask, set where a > b;  bits(mask): bit k for lane k
// Internal linkage, as in power_argmax_body.h.
#pragma once

#include "common/power_argmax.h"
#include "cpu/power_screen_rows_body.h"

namespace otcuda::cpu {
namespace {

typedef int32_t Word __attribute__((aligned(4), may_alias));

template <class Lanes>
constexpr int screen_samples = Lanes::kLanes * Lanes::kVectors;

template <class Lanes>
using ScreenSums = typename Lanes::Vector[Lanes::kTargets][Lanes::kVectors];

// Four coordinates of a tile.
template <class Lanes>
inline __attribute__((always_inline)) void screen_step(const uint8_t* x, const int8_t* y,
                                                       int64_t row, ScreenSums<Lanes>& sum) {
  constexpr int kVectors = Lanes::kVectors, kTargets = Lanes::kTargets;
  typename Lanes::Vector samples[kVectors];
#pragma GCC unroll 4
  for (int q = 0; q < kVectors; ++q) samples[q] = Lanes::load(x + q * Lanes::kLanes * 4);
#pragma GCC unroll 12
  for (int t = 0; t < kTargets; ++t) {
    const auto target = Lanes::fill(*reinterpret_cast<const Word*>(y + t * row));
#pragma GCC unroll 4
    for (int q = 0; q < kVectors; ++q) sum[t][q] = Lanes::dot(sum[t][q], samples[q], target);
  }
}

// Sums of a tile over some steps, at least one.
template <class Lanes>
inline __attribute__((always_inline)) void screen_steps(const uint8_t* x, const int8_t* y,
                                                        int64_t row, int64_t steps,
                                                        ScreenSums<Lanes>& sum) {
  constexpr int kStep = screen_samples<Lanes> * 4;
  if constexpr (Lanes::kWide) {
    int64_t s = 0;  // a loop that may be empty makes g++ 12 spill these sums, and this one others
    do screen_step<Lanes>(x + s * kStep, y + 4 * s, row, sum);
    while (++s < steps);
  } else {
    for (int64_t s = 0; s < steps; ++s) {
      screen_step<Lanes>(x + s * kStep, y + 4 * s, row, sum);
    }
  }
}

template <class Lanes>
inline __attribute__((always_inline)) void screen_start(const int32_t* start, int64_t sums,
                                                        ScreenSums<Lanes>& sum) {
#pragma GCC unroll 12
  for (int t = 0; t < Lanes::kTargets; ++t) {
    const auto from = Lanes::fill(start[t * sums]);
#pragma GCC unroll 4
    for (int q = 0; q < Lanes::kVectors; ++q) sum[t][q] = from;
  }
}

// Which sums of a tile are above their thresholds, bit by bit as they lie: 64 of them a word.
template <class Lanes>
inline __attribute__((always_inline)) void screen_above(const ScreenPanel& p, const int32_t* total,
                                                        uint64_t* words) {
  constexpr int kVectors = Lanes::kVectors, kMany = 64 / Lanes::kLanes;
#pragma GCC unroll 24
  for (int k = 0; k < Lanes::kTargets * kVectors; ++k) {
    const auto threshold = Lanes::load(p.threshold + k % kVectors * Lanes::kLanes);
    const auto sum = Lanes::load(total + k * Lanes::kLanes);
    const uint64_t above = Lanes::bits(Lanes::above(sum, threshold));
    words[k / kMany] |= above << k % kMany * Lanes::kLanes;
  }
}

// Thresholds rise by what the sums of a tile prove.
template <class Lanes>
inline __attribute__((always_inline)) void screen_prove(ScreenPanel* p, const int32_t* total) {
  constexpr int kVectors = Lanes::kVectors;
  const auto width = Lanes::fill(p->width);
#pragma GCC unroll 4
  for (int q = 0; q < kVectors; ++q) {
    int32_t* const at = p->threshold + q * Lanes::kLanes;
    auto most = Lanes::load(total + q * Lanes::kLanes);
#pragma GCC unroll 12
    for (int t = 1; t < Lanes::kTargets; ++t) {
      most = Lanes::max32(most, Lanes::load(total + (t * kVectors + q) * Lanes::kLanes));
    }
    Lanes::store(at, Lanes::max32(Lanes::sub32(most, width), Lanes::load(at)));
  }
}

// The pairs of a tile above their thresholds. How many there are is nothing a branch could foresee,
// so each word of bits gives one a round, which counts if it had any.
template <class Lanes>
__attribute__((noinline)) void screen_collect(ScreenPanel* p, int64_t i, const int32_t* total) {
  constexpr int kSamples = screen_samples<Lanes>, kWords = (Lanes::kTargets * kSamples + 63) / 64;
  uint64_t words[kWords] = {};
  screen_above<Lanes>(*p, total, words);
  if (p->width < kScreenProvesNothing) screen_prove<Lanes>(p, total);
  ScreenHit* to = p->hits + p->count;
  uint64_t left;
  do {
    left = 0;
#pragma GCC unroll 6
    for (int w = 0; w < kWords; ++w) {
      const uint32_t place = 64 * w + (__builtin_ctzll(words[w] | uint64_t(1) << 63));
      *to = {static_cast<int32_t>(i + place / kSamples), static_cast<int32_t>(place % kSamples),
             total[place]};
      to += words[w] != 0;
      words[w] &= words[w] - 1;
      left |= words[w];
    }
  } while (left != 0);
  p->count = to - p->hits;
}

template <class Lanes>
inline __attribute__((always_inline)) void screen_keep(ScreenPanel* p,
                                                       const ScreenSums<Lanes>& sum) {
#pragma GCC unroll 4
  for (int q = 0; q < Lanes::kVectors; ++q) {
    int32_t* const at = p->highest + q * Lanes::kLanes;
    auto highest = Lanes::load(at);
#pragma GCC unroll 12
    for (int t = 0; t < Lanes::kTargets; ++t) highest = Lanes::max32(highest, sum[t][q]);
    Lanes::store(at, highest);
  }
}

template <class Lanes>
inline __attribute__((always_inline)) void screen_finish(ScreenPanel* p, int64_t i,
                                                         const ScreenSums<Lanes>& sum,
                                                         int32_t* total) {
  constexpr int kVectors = Lanes::kVectors, kTargets = Lanes::kTargets;
  uint32_t any = 0;
#pragma GCC unroll 4
  for (int q = 0; q < kVectors; ++q) {
    auto highest = sum[0][q];
#pragma GCC unroll 12
    for (int t = 1; t < kTargets; ++t) highest = Lanes::max32(highest, sum[t][q]);
    any |= Lanes::bits(Lanes::above(highest, Lanes::load(p->threshold + q * Lanes::kLanes)));
  }
  if (__builtin_expect(any == 0, 1)) return;
#pragma GCC unroll 12
  for (int t = 0; t < kTargets; ++t) {
#pragma GCC unroll 4
    for (int q = 0; q < kVectors; ++q) {
      Lanes::store(total + (t * kVectors + q) * Lanes::kLanes, sum[t][q]);
    }
  }
  screen_collect<Lanes>(p, i, total);
}

// Chunk c of a tile, from 16 to 32 bits at its end: with the bounds in the first chunk, with the
// chunks before in the others. A function of its own: its loop has all the registers.
template <class Lanes, bool kFirst, bool kLast, bool kWarm>
__attribute__((noinline)) void screen_chunk(ScreenPanel* p, int64_t i, int64_t c, int32_t* total) {
  constexpr int kVectors = Lanes::kVectors, kTargets = Lanes::kTargets;
  const int64_t row = 4 * p->steps, sums = (p->steps + kScreenSteps - 1) / kScreenSteps;
  const int64_t from = c * kScreenSteps;
  int64_t steps = kLast ? p->steps - from : kScreenSteps;
  asm("" : "+r"(steps));  // a number the compiler knows tempts it to spill the sums
  ScreenSums<Lanes> sum;
  screen_start<Lanes>(p->start + i * sums + c, sums, sum);
  screen_steps<Lanes>(p->x + from * 4 * screen_samples<Lanes>, p->y + i * row + 4 * from, row,
                      steps, sum);
#pragma GCC unroll 12
  for (int t = 0; t < kTargets; ++t) {
#pragma GCC unroll 4
    for (int q = 0; q < kVectors; ++q) {
      int32_t* const at = total + (t * kVectors + q) * Lanes::kLanes;
      const auto before = kFirst ? Lanes::fill(p->bound[i + t]) : Lanes::load(at);
      sum[t][q] = Lanes::add32(Lanes::pairs(sum[t][q]), before);
      if constexpr (!kLast) Lanes::store(at, sum[t][q]);
    }
  }
  if constexpr (kLast && kWarm) screen_keep<Lanes>(p, sum);
  if constexpr (kLast && !kWarm) screen_finish<Lanes>(p, i, sum, total);
}

// Sums of halves become integers and meet their bounds at the end: in float they would round them.
template <class Lanes>
inline __attribute__((always_inline)) void screen_whole(const int32_t* bound,
                                                        ScreenSums<Lanes>& sum) {
#pragma GCC unroll 12
  for (int t = 0; t < Lanes::kTargets; ++t) {
    const auto from = Lanes::fill(bound[t]);
#pragma GCC unroll 4
    for (int q = 0; q < Lanes::kVectors; ++q) {
      sum[t][q] = Lanes::add32(Lanes::whole(sum[t][q]), from);
    }
  }
}

// A tile of wide sums, which start at the bounds.
template <class Lanes, bool kWarm>
inline __attribute__((always_inline)) void screen_wide_tile(ScreenPanel* p, int64_t i,
                                                            int64_t steps, int32_t* total) {
  ScreenSums<Lanes> sum;
  static constexpr int32_t kZeros[Lanes::kTargets] = {};
  screen_start<Lanes>(Lanes::kHalves ? kZeros : p->bound + i, 1, sum);
  screen_steps<Lanes>(p->x, p->y + i * 4 * steps, 4 * steps, steps, sum);
  if constexpr (Lanes::kHalves) screen_whole<Lanes>(p->bound + i, sum);
  if constexpr (kWarm) screen_keep<Lanes>(p, sum);
  if constexpr (!kWarm) screen_finish<Lanes>(p, i, sum, total);
}

template <class Lanes, bool kWarm>
inline void screen_tile(ScreenPanel* p, int64_t i, int64_t last, int32_t* total) {
  if (last == 0) return screen_chunk<Lanes, true, true, kWarm>(p, i, 0, total);
  screen_chunk<Lanes, true, false, false>(p, i, 0, total);
  for (int64_t c = 1; c < last; ++c) screen_chunk<Lanes, false, false, false>(p, i, c, total);
  screen_chunk<Lanes, false, true, kWarm>(p, i, last, total);
}

// Returns where it had to stop.
template <class Lanes, bool kWarm>
int64_t screen_scan(ScreenPanel* p, int64_t i, int64_t targets) {
  alignas(64) int32_t total[Lanes::kTargets * screen_samples<Lanes>];
  const int64_t last = (p->steps - 1) / kScreenSteps;
  int64_t steps = p->steps;
  asm("" : "+r"(steps));
  for (; i < targets; i += Lanes::kTargets) {
    if (!kWarm && p->room - p->count < Lanes::kTargets * screen_samples<Lanes>) return i;
    if constexpr (Lanes::kWide) screen_wide_tile<Lanes, kWarm>(p, i, steps, total);
    if constexpr (!Lanes::kWide) screen_tile<Lanes, kWarm>(p, i, last, total);
  }
  return i;
}

template <class Lanes>
int64_t screen_panel(ScreenPanel* p, int64_t i) {
  return screen_scan<Lanes, false>(p, i, p->targets);
}

template <class Lanes>
void screen_warm(ScreenPanel* p, int64_t targets) {
  screen_scan<Lanes, true>(p, 0, targets);
}

// Rounded towards zero and raised by 3: by more than all roundings here, docs/power_argmax.md.
inline void screen_bounds(const ScreenBounds& b) {
  for (int64_t i = 0; i < b.targets; ++i) {
    const float error = b.a * b.norm[i] + b.c * b.residue[i];
    const float size = error + __builtin_fabsf(b.height[i]);
    const float bound = (error + b.height[i]) * b.inverse + 4e-7f * (size * b.inverse);
    b.bound[i] =
        (bound > -1e9f ? static_cast<int32_t>(bound) + 3 : kScreenNever) - b.offset * b.total[i];
  }
}

typedef float ListScores __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ListPlaces __attribute__((vector_size(64), aligned(4), may_alias));

// As topk_insert of power_topk_body.h, for targets in any order.
inline void screen_enter(TopkList<float>* list, int room, float score, int32_t target) {
  constexpr int kStep = TopkList<float>::kStep, kBefore = TopkList<float>::kBefore;
  const ListScores score_of_all = score - ListScores{};  // 0 + score would lose the sign of -0
  const ListPlaces target_of_all = target - ListPlaces{};
  for (int k = kBefore + room - kStep; k >= kBefore; k -= kStep) {
    const ListScores s = *(const ListScores*)(list->score + k);
    const ListScores s1 = *(const ListScores*)(list->score + k - 1);
    const ListPlaces i = *(const ListPlaces*)(list->index + k);
    const ListPlaces i1 = *(const ListPlaces*)(list->index + k - 1);
    const ListPlaces stays = (s > score_of_all) | ((s == score_of_all) & (i < target_of_all));
    const ListPlaces enters = (s1 > score_of_all) | ((s1 == score_of_all) & (i1 < target_of_all));
    *(ListScores*)(list->score + k) = stays ? s : (enters ? score_of_all : s1);
    *(ListPlaces*)(list->index + k) = stays ? i : (enters ? target_of_all : i1);
  }
}

template <class Lanes>
ScreenKernels screen_kernels(double pair_cost, double chain_cost, double most_spent) {
  return {screen_samples<Lanes>,
          Lanes::kTargets,
          Lanes::kWide,
          Lanes::kHalves,
          pair_cost,
          chain_cost,
          most_spent,
          &screen_panel<Lanes>,
          &screen_warm<Lanes>,
          &screen_bounds,
          &screen_largest,
          Lanes::kHalves ? &screen_halve : &screen_quantise<Lanes::kWide>,
          &screen_targets<Lanes::kWide, Lanes::kHalves>,
          &screen_enter};
}

}  // namespace
}  // namespace otcuda::cpu
