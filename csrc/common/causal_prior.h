// SPDX-License-Identifier: Apache-2.0
// causal_prior: a small network that foretells each symbol of a map from those before it, in
// integers alone: what it says is the same on every machine, so it may feed a range coder.
//
//   input    of N neighbours (above, or to the left): a row of codes [K + 1, E] each, u8, 0 .. 127;
//            row K for what lies outside the map
//   a layer  y_o = bias_o + sum_i weight_oi x_i;   r_o = (y_o multiplier_o + 2^(shift-1)) >> shift
//            x_o = min(max(r_o, 0), 127); of the last layer t_o = min(max(r_o, -2^20), 2^20), K of
//            them: log2 of the symbols' chances in 2^-8, but for a constant
//   chances  d_o = min(max t - t_o, 6143);  v_o = X[d_o mod 256] >> (d_o >> 8);  V their sum
//            f_o = 1 + (v_o q >> 32), q = floor((2^P - K) 2^32 / V); the first of the largest v
//            gets what is missing to 2^P
//   X[j]     2^(24 - j / 256), rounded down, by exp2_neg_q62 (common/tables.h)
//   coding   row by row, each symbol a step of range64 at precision P
//
// Contract:
//   types    weights i8, bias i32, multiplier 0 .. 2^31 - 1 an output, shift 1 .. 62 a layer; sums
//            i32, products with the multiplier i64; shifts of negatives are arithmetic
//   bounds   |bias_o| + 127 sum_i |weight_oi| < 2^31, checked when a prior is made, so no order of
//            adding overflows: every level gives the same numbers
//   limits   2 <= K <= 4096, 2 K <= 2^P, P <= 24; N, E >= 1; N E and outputs <= 4096; 1 .. 8 layers
//
// Reference: python_tests/decoders/causal_prior.py, from docs/coding.md alone.
#pragma once

#include <array>
#include <cstdint>

#include "common/tables.h"

namespace otcuda {

constexpr int kPriorLayersMax = 8;
constexpr int64_t kPriorWidthMax = 4096;
constexpr int64_t kPriorActivationMax = 127;
constexpr int64_t kPriorLogMax = int64_t{1} << 20;
constexpr int64_t kPriorFallMax = 24 * 256 - 1;  // what falls further has the least chance

inline std::array<uint32_t, 256> prior_exp2() {
  std::array<uint32_t, 256> exp2 = {};
  for (uint64_t j = 0; j < 256; ++j) exp2[j] = static_cast<uint32_t>(exp2_neg_q62(j << 24) >> 38);
  return exp2;
}

constexpr int64_t prior_scaled(int32_t sum, int32_t multiplier, int shift) {
  return (int64_t{sum} * multiplier + (int64_t{1} << (shift - 1))) >> shift;
}

}  // namespace otcuda
