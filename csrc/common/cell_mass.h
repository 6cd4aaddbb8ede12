// SPDX-License-Identifier: Apache-2.0
// cell_mass: how much of the samples lies in each cell.
//
//   mass[i] = number of b with index[b] = i         or         mass[i] = sum of weights[b] over
//   those b
//
// mass / B - nu is the gradient of the semi-discrete energy (docs/transport.md).
//
// Contract, the same for every backend:
//   shapes   index [B] int64, weights [B] float32 or float64 or none -> mass [N]; B >= 0, N >= 1
//   index    in [0, N); -1, power_argmax's mark for a row of NaN, is left out; anything else is an
//   error counts   without weights: int64 sums     with weights: in the dtype of weights, in fixed
//   point: with
//                k = 62 - exponent(max |weights|) - ceil(log2(B))
//            every weight becomes the integer nearest to w * 2^k (ties to even), integers are
//            added, and the sum times 2^-k is rounded once to float64 and then to the dtype. Adding
//            integers knows no order: the same bits on any number of threads and with atomics.
//            Absolute error at most B * 2^-(k+1).
//   errors   weights that are not finite
//   memory   8 N bytes a thread, at most 64 MiB; above that threads share targets, not samples
//
// Reference: otcuda/reference.py.
#pragma once

#include "common/host_device.h"

namespace otcuda {

// k of the contract. `largest` is max |weights|, finite; B >= 1.
OTCUDA_HD int cell_mass_scale(double largest, int64_t B) {
  if (largest == 0.0) return 0;
  const int biased = int((double_bits(largest) >> 52) & 0x7FF);
  const int exponent = biased == 0 ? -1021 : biased - 1022;  // largest < 2^exponent
  int log2_B = 0;
  while ((int64_t(1) << log2_B) < B) ++log2_B;
  return 62 - exponent - log2_B;
}

// a * 2^k for |k| <= 1200, in two steps because 2^k itself may be no double; rounded at most once,
// since the first step takes a number to the middle of the range.
OTCUDA_HD double scale_by_power_of_two(double a, int k) {
  const int half = k / 2;
  const double first = bits_double(uint64_t(half + 1023) << 52);
  const double second = bits_double(uint64_t(k - half + 1023) << 52);
  return a * first * second;
}

OTCUDA_HD int64_t cell_mass_fixed(double weight, int k) {
  return round_to_int64(scale_by_power_of_two(weight, k));
}

OTCUDA_HD double cell_mass_value(int64_t sum, int k) {
  return scale_by_power_of_two(double(sum), -k);
}

}  // namespace otcuda
