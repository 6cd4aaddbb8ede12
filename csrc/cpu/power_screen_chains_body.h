// SPDX-License-Identifier: Apache-2.0
// Scores of the pairs that a screen leaves, once for all instruction sets. Lanes are pairs: some
// coordinates of kLanes rows are transposed on registers, of samples and of targets, and each lane
// runs the chain of the contract.
//
// Lanes offers Vector, kLanes, kStep; fill, loadu, storeu, fma, add, and columns(rows, d, out):
// coordinate d + k of kLanes rows in out[k], k < kStep. Internal linkage, as in
// power_argmax_body.h.
#pragma once

#include "common/host_device.h"
#include "cpu/power_screen_kernel.h"

namespace otcuda::cpu {
namespace {

// Rows of kLanes pairs; where fewer are left, the last one again.
template <class Lanes>
inline __attribute__((always_inline)) void chain_rows(const float* const* from, int64_t left,
                                                      const float** rows) {
#pragma GCC unroll 16
  for (int k = 0; k < Lanes::kLanes; ++k) rows[k] = from[k < left ? k : left - 1];
}

// The coordinates from d on that fill no step.
template <class Lanes>
inline __attribute__((always_inline)) typename Lanes::Vector chain_last(
    const float* const* x, const float* const* y, int64_t d, int64_t D,
    typename Lanes::Vector sum) {
  for (; d < D; ++d) {
    float a[Lanes::kLanes], b[Lanes::kLanes];
    for (int k = 0; k < Lanes::kLanes; ++k) {
      a[k] = x[k][d];
      b[k] = y[k][d];
    }
    sum = Lanes::fma(Lanes::loadu(a), Lanes::loadu(b), sum);
  }
  return sum;
}

template <class Lanes>
void screen_chains(const ScreenPairs& pairs) {
  using Vector = typename Lanes::Vector;
  constexpr int kLanes = Lanes::kLanes, kStep = Lanes::kStep, kLine = 16;
  const ScreenPairs p = pairs;  // which storing a score does not change
  const float *x[kLanes], *y[kLanes], *next[kLanes];
  chain_rows<Lanes>(p.y, p.count, next);
  for (int64_t c = 0; c < p.count; c += kLanes) {
    const int64_t left = p.count - c;
    chain_rows<Lanes>(p.x + c, left, x);
#pragma GCC unroll 16
    for (int k = 0; k < kLanes; ++k) y[k] = next[k];
    if (left > kLanes) chain_rows<Lanes>(p.y + c + kLanes, left - kLanes, next);
    Vector sum = Lanes::fill(0.0f);
    int64_t d = 0;
    for (; d + kStep <= p.D; d += kStep) {
      if (d % kLine == 0 && left > kLanes) {  // targets come from anywhere in memory
#pragma GCC unroll 16
        for (int k = 0; k < kLanes; ++k) __builtin_prefetch(next[k] + d);
      }
      Vector a[kStep], b[kStep];
      Lanes::columns(x, d, a);
      Lanes::columns(y, d, b);
#pragma GCC unroll 8
      for (int k = 0; k < kStep; ++k) sum = Lanes::fma(a[k], b[k], sum);
    }
    sum = chain_last<Lanes>(x, y, d, p.D, sum);
    if (left >= kLanes) {
      Lanes::storeu(p.score + c, Lanes::add(sum, Lanes::loadu(p.h + c)));
    } else {
      float last[kLanes];
      Lanes::storeu(last, sum);
      for (int64_t k = 0; k < left; ++k) p.score[c + k] = last[k] + p.h[c + k];
    }
  }
}

}  // namespace
}  // namespace otcuda::cpu
