// SPDX-License-Identifier: Apache-2.0
// power_topk, once for all instruction sets. Lanes are samples and each target is broadcast, as in
// power_argmax_body.h; a tile of targets whose scores all stay at or below the thresholds costs one
// compare a vector, the others enter the lists one by one.
//
// Lanes offers Value, Vector, kLanes, kVectors, kTargets; fill, load, store, fma, add,
// max (NaN first never wins), min (NaN second comes through),
// above(a, b): a mask, set where a > b, bits(mask): bit k for lane k, keep_place(highest, best,
// here, to): the place `here` where highest > best, else what is there.
// Everything here has internal linkage: a copy built with AVX-512 must not become the one of
// everybody.
#pragma once

#include "common/power_argmax.h"
#include "cpu/power_topk_kernel.h"

namespace otcuda::cpu {
namespace {

constexpr int kUnrolledTopkD = 4;  // dimensions up to here have a tile of their own

// 64 bytes anywhere in memory; the compiler makes them what the instruction set has.
template <class T>
struct TopkVectors;
template <>
struct TopkVectors<float> {
  typedef float Scores __attribute__((vector_size(64), aligned(4), may_alias));
  typedef int32_t Places __attribute__((vector_size(64), aligned(4), may_alias));
};
template <>
struct TopkVectors<double> {
  typedef double Scores __attribute__((vector_size(64), aligned(8), may_alias));
  typedef int64_t Places __attribute__((vector_size(64), aligned(8), may_alias));
};

// Puts a target where it belongs; of equal scores the earlier target comes first. `room`: places of
// the list in use, whole steps.
template <class T>
inline __attribute__((always_inline)) void topk_insert(TopkList<T>* list, int room, T score,
                                                       typename TopkIndex<T>::Type index) {
  using Scores = typename TopkVectors<T>::Scores;
  using Places = typename TopkVectors<T>::Places;
  constexpr int kStep = TopkList<T>::kStep, kBefore = TopkList<T>::kBefore;
  const Scores score_of_all = score - Scores{};  // 0 + score would lose the sign of -0
  const Places index_of_all = index - Places{};
  // From the last places to the first: what is written is not read again.
  for (int k = kBefore + room - kStep; k >= kBefore; k -= kStep) {
    const Scores s = *(const Scores*)(list->score + k), s1 = *(const Scores*)(list->score + k - 1);
    const Places i = *(const Places*)(list->index + k), i1 = *(const Places*)(list->index + k - 1);
    const Places stays = s >= score_of_all, enters = s1 >= score_of_all;
    *(Scores*)(list->score + k) = stays ? s : (enters ? score_of_all : s1);
    *(Places*)(list->index + k) = stays ? i : (enters ? index_of_all : i1);
  }
}

// Scores above the thresholds of before the tile, by their bits, t * kLanes + lane: the lower
// target comes first. A list that has risen since may turn them away.
template <class Lanes>
inline __attribute__((always_inline)) void topk_enter_some(
    const TopkPanel<typename Lanes::Value>& panel, int64_t i, int q, uint64_t mask,
    const typename Lanes::Value* score) {
  using T = typename Lanes::Value;
  using List = TopkList<T>;
  const int room = (panel.k + List::kStep - 1) / List::kStep * List::kStep;
  const int last = List::kBefore + panel.k - 1;
  for (; mask != 0; mask &= mask - 1) {
    const int bit = __builtin_ctzll(mask), lane = bit % Lanes::kLanes;
    List* const list = panel.lists + q + lane;
    if (!(score[bit] > list->score[last])) continue;
    topk_insert<T>(list, room, score[bit],
                   typename TopkIndex<T>::Type(panel.first + i + bit / Lanes::kLanes));
    if (list->score[last] > panel.threshold[q + lane]) {
      panel.threshold[q + lane] = list->score[last];
    }
  }
}

// Bit q of `vectors` is set where one of vector q of samples has a score above its threshold.
// `sums` are inner products, [kTargets][samples].
template <class Lanes, int kTargets>
__attribute__((noinline)) void topk_enter(const TopkPanel<typename Lanes::Value>& panel, int64_t i,
                                          uint32_t vectors, const typename Lanes::Value* sums) {
  constexpr int kLanes = Lanes::kLanes, kSamples = kLanes * Lanes::kVectors;
  constexpr int kAtOnce = 64 / kLanes;  // targets whose lanes fill a mask
  alignas(64) typename Lanes::Value score[kTargets * kLanes];
  for (; vectors != 0; vectors &= vectors - 1) {
    const int q = __builtin_ctz(vectors) * kLanes;
    const auto threshold = Lanes::load(panel.threshold + q);
    for (int t0 = 0; t0 < kTargets; t0 += kAtOnce) {
      uint64_t mask = 0;
      for (int t = t0; t < kTargets && t < t0 + kAtOnce; ++t) {
        const auto s =
            Lanes::add(Lanes::load(sums + t * kSamples + q), Lanes::fill(panel.h[i + t]));
        Lanes::store(score + t * kLanes, s);
        mask |= uint64_t(Lanes::bits(Lanes::above(s, threshold))) << ((t - t0) * kLanes);
      }
      topk_enter_some<Lanes>(panel, i + t0, q, mask, score + t0 * kLanes);
    }
  }
}

template <class Lanes, int kTargets>
using TopkSums = typename Lanes::Vector[kTargets][Lanes::kVectors];

// Inner products of a tile. kD: the dimension where it is known, else 0.
template <class Lanes, int kTargets, int kD, class Panel>
inline __attribute__((always_inline)) void topk_products(const Panel& panel, int64_t i,
                                                         TopkSums<Lanes, kTargets>& sum) {
  using T = typename Lanes::Value;
  using Vector = typename Lanes::Vector;
  constexpr int kVectors = Lanes::kVectors;
  const int64_t D = kD > 0 ? kD : panel.D;
  const T* const y = panel.y + i * D;
#pragma GCC unroll 8
  for (int t = 0; t < kTargets; ++t) {
#pragma GCC unroll 4
    for (int q = 0; q < kVectors; ++q) sum[t][q] = Lanes::fill(T(0));
  }
  const T* x = panel.x;
  const auto step = [&](int64_t d) __attribute__((always_inline)) {
    Vector samples[kVectors];
#pragma GCC unroll 4
    for (int q = 0; q < kVectors; ++q) samples[q] = Lanes::load(x + q * Lanes::kLanes);
#pragma GCC unroll 8
    for (int t = 0; t < kTargets; ++t) {
      const Vector target = Lanes::fill(y[t * D + d]);
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) sum[t][q] = Lanes::fma(samples[q], target, sum[t][q]);
    }
    x += Lanes::kLanes * kVectors;
  };
  if constexpr (kD > 0) {
#pragma GCC unroll 4
    for (int d = 0; d < kD; ++d) step(d);
  } else {
#pragma GCC unroll 2
    for (int64_t d = 0; d < D; ++d) step(d);
  }
}

// The most of `least` and the scores of a tile, vector q of samples.
template <class Lanes, int kTargets, class Panel>
inline __attribute__((always_inline)) typename Lanes::Vector topk_highest(
    const Panel& panel, int64_t i, const TopkSums<Lanes, kTargets>& sum, int q,
    typename Lanes::Vector least) {
#pragma GCC unroll 8
  for (int t = 0; t < kTargets; ++t) {
    least = Lanes::max(Lanes::add(sum[t][q], Lanes::fill(panel.h[i + t])), least);
  }
  return least;
}

template <class Lanes, int kTargets, int kD>
inline __attribute__((always_inline)) void topk_tile(const TopkPanel<typename Lanes::Value>& panel,
                                                     int64_t i) {
  constexpr int kVectors = Lanes::kVectors, kSamples = Lanes::kLanes * kVectors;
  TopkSums<Lanes, kTargets> sum;
  topk_products<Lanes, kTargets, kD>(panel, i, sum);
  uint32_t above = 0;
#pragma GCC unroll 4
  for (int q = 0; q < kVectors; ++q) {
    const auto threshold = Lanes::load(panel.threshold + q * Lanes::kLanes);
    const auto highest = topk_highest<Lanes, kTargets>(panel, i, sum, q, threshold);
    above |= uint32_t(Lanes::above(highest, threshold) != 0) << q;
  }
  if (__builtin_expect(above != 0, 0)) {
    alignas(64) typename Lanes::Value sums[kTargets * kSamples];
#pragma GCC unroll 8
    for (int t = 0; t < kTargets; ++t) {
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) {
        Lanes::store(sums + t * kSamples + q * Lanes::kLanes, sum[t][q]);
      }
    }
    topk_enter<Lanes, kTargets>(panel, i, above, sums);
  }
}

template <class Lanes, int kTargets>
inline void topk_last_tile(const TopkPanel<typename Lanes::Value>& panel, int64_t i) {
  if constexpr (kTargets > 0) {
    if (panel.targets - i == kTargets) {
      topk_tile<Lanes, kTargets, 0>(panel, i);
    } else {
      topk_last_tile<Lanes, kTargets - 1>(panel, i);
    }
  }
}

template <class Lanes, int kD = kUnrolledTopkD>
void topk_panel(const TopkPanel<typename Lanes::Value>& panel) {
  if (kD > 0 && panel.D != kD) return topk_panel<Lanes, (kD > 0 ? kD - 1 : 0)>(panel);
  int64_t i = 0;
  for (; i + Lanes::kTargets <= panel.targets; i += Lanes::kTargets) {
    topk_tile<Lanes, Lanes::kTargets, kD>(panel, i);
  }
  topk_last_tile<Lanes, Lanes::kTargets - 1>(panel, i);
}

// The most that tiles of targets spread over the panel have for each sample: of them, the k largest
// in the first k rows of `most` [k][samples], largest first. k targets reach the last of these.
template <class Lanes>
void topk_warm(const TopkPanel<typename Lanes::Value>& panel, int64_t tiles,
               typename Lanes::Value* most) {
  using T = typename Lanes::Value;
  constexpr int kVectors = Lanes::kVectors, kSamples = Lanes::kLanes * kVectors;
  const auto none = Lanes::fill(T(-__builtin_inf()));
  for (int64_t k = 0; k < panel.k * kSamples; k += Lanes::kLanes) Lanes::store(most + k, none);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t i = tile * panel.targets / tiles;
    TopkSums<Lanes, Lanes::kTargets> sum;
    topk_products<Lanes, Lanes::kTargets, 0>(panel, i, sum);
    typename Lanes::Vector highest[kVectors];
#pragma GCC unroll 4
    for (int q = 0; q < kVectors; ++q) {
      highest[q] = topk_highest<Lanes, Lanes::kTargets>(panel, i, sum, q, none);
    }
    T* row = most;
    for (int k = 0; k < panel.k; ++k, row += kSamples) {  // what is less goes down a row
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) {
        const auto here = Lanes::load(row + q * Lanes::kLanes);
        Lanes::store(row + q * Lanes::kLanes, Lanes::max(here, highest[q]));
        highest[q] = Lanes::min(here, highest[q]);
      }
    }
  }
}

// Late in a scan most tiles exceed the second best of no sample, and a compare says so; early on
// that branch would be mispredicted all the time, and all vectors of samples go on without it. Who
// won is asked at the end, of one tile.
template <class Lanes, int kTargets, int kD, bool kEarly>
inline __attribute__((always_inline)) void pair_tile(const PairPanel<typename Lanes::Value>& panel,
                                                     int64_t i) {
  constexpr int kVectors = Lanes::kVectors;
  TopkSums<Lanes, kTargets> sum;
  topk_products<Lanes, kTargets, kD>(panel, i, sum);
  uint32_t above = kEarly ? ~0u : 0;
#pragma GCC unroll 4
  for (int q = 0; q < (kEarly ? 0 : kVectors); ++q) {
    const auto second = Lanes::load(panel.second + q * Lanes::kLanes);
    const auto highest = topk_highest<Lanes, kTargets>(panel, i, sum, q, second);
    above |= uint32_t(Lanes::above(highest, second) != 0) << q;
  }
  if (!kEarly && __builtin_expect(above == 0, 1)) return;
#pragma GCC unroll 4
  for (int q = 0; q < kVectors; ++q) {
    if (!kEarly && (above >> q & 1) == 0) continue;
    const int at = q * Lanes::kLanes;
    const auto best = Lanes::load(panel.best + at);
    auto highest = best, second = Lanes::load(panel.second + at);
#pragma GCC unroll 8
    for (int t = 0; t < kTargets; ++t) {
      const auto score = Lanes::add(sum[t][q], Lanes::fill(panel.h[i + t]));
      second = Lanes::max(Lanes::min(highest, score), second);  // a NaN comes through min, not max
      highest = Lanes::max(score, highest);
    }
    Lanes::keep_place(highest, best, panel.first + i, panel.place + at);
    Lanes::store(panel.best + at, highest);
    Lanes::store(panel.second + at, second);
  }
}

template <class Lanes, int kTargets>
inline void pair_last_tile(const PairPanel<typename Lanes::Value>& panel, int64_t i) {
  if constexpr (kTargets > 0) {
    if (panel.targets - i == kTargets) {
      pair_tile<Lanes, kTargets, 0, true>(panel, i);
    } else {
      pair_last_tile<Lanes, kTargets - 1>(panel, i);
    }
  }
}

template <class Lanes, bool kEarly, int kD = kUnrolledTopkD>
void pair_panel(const PairPanel<typename Lanes::Value>& given) {
  if (kD > 0 && given.D != kD) return pair_panel<Lanes, kEarly, (kD > 0 ? kD - 1 : 0)>(given);
  const PairPanel<typename Lanes::Value> panel = given;  // which storing a best does not change
  int64_t i = 0;
  for (; i + Lanes::kTargets <= panel.targets; i += Lanes::kTargets) {
    pair_tile<Lanes, Lanes::kTargets, kD, kEarly>(panel, i);
  }
  pair_last_tile<Lanes, Lanes::kTargets - 1>(panel, i);
}

template <class T, int kTargets>
int pair_settle(const T* x, const T* y, const T* h, int64_t targets, int64_t D, T* value) {
  T score[kTargets] = {};
  const T* row[kTargets];
  const int last = targets < kTargets ? int(targets) - 1 : kTargets - 1;
  for (int t = 0; t < kTargets; ++t) row[t] = y + (t < last ? t : last) * D;
  for (int64_t d = 0; d < D; ++d) {
#pragma GCC unroll 8
    for (int t = 0; t < kTargets; ++t) score[t] = exact_fma(x[d], row[t][d], score[t]);
  }
  int winner = -1;
  for (int t = 0; t <= last; ++t) {
    score[t] += h[t];
    if (score[t] == score[t] && (winner < 0 || score[t] > score[winner])) winner = t;
  }
  *value = score[winner];
  return winner;
}

template <class T>
int64_t topk_dead(const T* x, const T* y, const T* h, int64_t targets, int64_t D, int64_t first,
                  int64_t* index, int64_t room) {
  int64_t found = 0;
  for (int64_t i = 0; i < targets && found < room; ++i) {
    const T score = power_argmax_score(x, y + i * D, h[i], D);
    if (score == T(-__builtin_inf())) index[found++] = first + i;
  }
  return found;
}

template <class Lanes>
constexpr TopkKernel<typename Lanes::Value> topk_kernel() {
  return {Lanes::kLanes * Lanes::kVectors,
          Lanes::kTargets,
          &topk_panel<Lanes>,
          &pair_panel<Lanes, true>,
          &pair_panel<Lanes, false>,
          &pair_settle<typename Lanes::Value, Lanes::kTargets>,
          &topk_warm<Lanes>,
          &topk_dead<typename Lanes::Value>};
}

}  // namespace
}  // namespace otcuda::cpu
