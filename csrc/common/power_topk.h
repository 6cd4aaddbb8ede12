// SPDX-License-Identifier: Apache-2.0
// power_topk: the k best cells of each sample, in order.
//
//   value[b, 0 .. k-1]   the k largest s(b, i) = <x_b, y_i> + h_i, largest first
//   index[b, j]          the target that has value[b, j]
//
// k = 1 is power_argmax. Its gap[b] = value[b, 0] - value[b, 1], rounded once, is how far a sample
// lies from the border of its cell, in the unit of scores; 0 where both are equal (infinities too),
// +inf where there is no second above -inf, NaN where there is no first.
//
// Contract, the same for every backend:
//   shapes   x [G, B, D], y [G, N, D], h [G, N] -> value [G, B, k], index [G, B, k] int64; each
//            group alone; G, B, D >= 0, N >= 1, 1 <= k <= kMostTopk
//   dtypes   float32 or float64, the same for x, y, h and value
//   value    the chain of common/power_argmax.h, bit for bit
//   order    value down, of equal values (+0 and -0 are equal) the index up
//   missing  a NaN score is in no list, -inf is a number like others; where fewer than k scores are
//            numbers (N < k counts too), the places left over hold value NaN and index -1
//   modes    as power_argmax
//   memory   O(threads * max(1 MiB, 64 D) + k samples that threads share targets of)
//   threads  groups and samples are shared out, targets too when samples are few; the result does
//            not depend on it, nor on the level
//
// Reference: otcuda/reference.py.  What it costs beside power_argmax: docs/power_argmax.md.
#pragma once

#include "common/host_device.h"

namespace otcuda {

constexpr int kMostTopk = 64;  // k

// Whether a score of one target comes before another in a list. A NaN comes before nothing.
template <class T, class Index>
OTCUDA_HD bool power_topk_before(T score, Index index, T other, Index other_index) {
  return score > other || (score == other && index < other_index);
}

// Of the two best scores; second is -inf where there is none above.
template <class T>
OTCUDA_HD T power_gap(T best, T second) {
  return best == second ? T(0) : best - second;  // inf - inf would be NaN
}

}  // namespace otcuda
