// SPDX-License-Identifier: Apache-2.0
// adaptive: binary models that learn while they code, over range64, in integers alone.
//
//   a symbol  of k bits, highest first: a walk down a binary tree, node = 1, then 2 node + bit
//   counter   of a node in a context: two u16 chances of a 1 in 2^-16, a fast and a slow one;
//             p = (fast + slow) >> 1; after a bit each moves (target - chance) >> rate, target
//             65535 or 0
//   mixing    of N >= 2 counters, each of its own context: stretch_j = S[p_j >> 4],
//             m = sum_j w[d][j] stretch_j >> 16 (d: depth in the tree), p = Q[m + 2048] with m
//             within -2048 .. 2047; after a bit w[d][j] += (2^16 bit - p) stretch_j >> 16.
//             N = 1: p is the counter's
//   p         is kept within 32 .. 65504 and coded as range64's bit at P = 16
//   S[i]      256 ln((2 i + 1) / (8191 - 2 i)), towards 0, i < 4096;
//   Q[i]      2^16 / (1 + e^-((i - 2048) / 256)), rounded down, i < 4096
//
// S and Q are made of log2_q56 and exp2_neg_q62 (common/tables.h), so they are the same anywhere.
#pragma once

#include <array>
#include <cstdint>

#include "common/tables.h"

namespace otcuda {

constexpr int kAdaptiveBitsMax = 12;
constexpr int kAdaptiveInputsMax = 8;
constexpr int kAdaptiveLeast = 32;  // of p, and of 2^16 - p
constexpr uint64_t kLn2Q32 = 2977044471;
constexpr uint64_t kLog2EQ32 = 6196328018;

inline std::array<int16_t, 4096> adaptive_stretch() {
  std::array<int16_t, 4096> stretch = {};
  for (uint32_t i = 0; i < 4096; ++i) {
    const uint64_t p = log2_q56(2 * i + 1), q = log2_q56(8191 - 2 * i);
    const uint64_t distance = p < q ? q - p : p - q;  // log2 in Q56
    const auto nats = static_cast<int16_t>(uint128{distance} * kLn2Q32 >> (56 + 32 - 8));
    stretch[i] = p < q ? static_cast<int16_t>(-nats) : nats;
  }
  return stretch;
}

inline std::array<uint16_t, 4096> adaptive_squash() {
  std::array<uint16_t, 4096> squash = {};
  for (int i = 0; i < 4096; ++i) {
    const uint64_t distance = static_cast<uint64_t>(i < 2048 ? 2048 - i : i - 2048);
    const uint128 one = uint128{1} << 62, e = exp2_neg_q62(distance * kLog2EQ32 >> 8);
    const uint128 p = ((i < 2048 ? e : one) << 16) / (one + e);
    const uint128 most = 65536 - kAdaptiveLeast;
    squash[i] = static_cast<uint16_t>(p < kAdaptiveLeast ? kAdaptiveLeast : p > most ? most : p);
  }
  return squash;
}

}  // namespace otcuda
