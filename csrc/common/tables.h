// SPDX-License-Identifier: Apache-2.0
// tables: integer frequency tables, the models of an entropy coder, equal on every machine.
//
//   T tables over one alphabet low .. low + n - 1; frequency[t][s] in units of 2^-P
//   escape = false   every frequency >= 1, each table sums to 2^P
//   escape = true    each table sums to 2^P - 1; the slot 2^P - 1 is the escape's; a frequency of 0
//                    means that the symbol follows an escape, as does any other int32
//
// Contract:
//   limits    1 <= P <= 24, for rans32 16; 1 <= T, n <= 2^16; T n <= 2^22; low .. low + n - 1
//   inside int32 quantise  the code-length optimum: f_s >= 1 maximise sum_s w_s log2 f_s
//   (kTableLogBits below) numbers   integers only, no libm, no rounding mode: the same tables under
//   any compiler's flags
//
// The code of an escape and the canonical bytes of tables: docs/coding.md.
#pragma once

#include <array>
#include <cstdint>

namespace otcuda {

__extension__ typedef unsigned __int128 uint128;

constexpr int kTablePrecisionMax = 24;
constexpr int kTableWordPrecisionMax =
    16;  // an interval in a word; wider ones are for range64 only
constexpr int64_t kTableSymbolsMax = 65536;
constexpr int64_t kTableCountMax = 65536;
constexpr int64_t kTableEntriesMax = int64_t{1} << 22;
constexpr int kTableLogBits = 56;  // the gains w (log2(k+1) - log2 k) fall strictly up to k = 2^24

// floor-like log2(v) in Q56, v >= 1: one bit of the fraction a squaring. Strictly increasing up to
// 2^24, and so are the falls of its differences.
constexpr uint64_t log2_q56(uint32_t v) {
  uint64_t whole = 31;
  while (v >> whole == 0) --whole;
  uint64_t mantissa = uint64_t{v} << (63 - whole);  // in [2^63, 2^64)
  uint64_t fraction = 0;
  for (int i = 0; i < kTableLogBits; ++i) {
    const uint128 square = uint128{mantissa} * mantissa;  // in [2^126, 2^128)
    const bool doubled = (square >> 127) != 0;
    mantissa = static_cast<uint64_t>(square >> (doubled ? 64 : 63));
    fraction = fraction << 1 | (doubled ? 1 : 0);
  }
  return whole << kTableLogBits | fraction;
}

constexpr uint64_t integer_sqrt(uint128 v) {
  uint64_t root = 0;
  for (int b = 63; b >= 0; --b) {
    const uint64_t longer = root | uint64_t{1} << b;
    if (uint128{longer} * longer <= v) root = longer;
  }
  return root;
}

// 2^-(2^-k) in Q62, k = 0 .. 32: each the square root of the one before.
constexpr std::array<uint64_t, 33> exp2_roots() {
  std::array<uint64_t, 33> roots = {};
  roots[0] = uint64_t{1} << 61;
  for (int k = 1; k <= 32; ++k) roots[k] = integer_sqrt(uint128{roots[k - 1]} << 62);
  return roots;
}

// 2^-y in Q62 for y in Q32.
inline uint64_t exp2_neg_q62(uint64_t y) {
  static constexpr std::array<uint64_t, 33> kRoots = exp2_roots();
  const uint64_t whole = y >> 32;
  if (whole >= 62) return 0;
  uint64_t product = uint64_t{1} << 62;
  for (int k = 1; k <= 32; ++k) {
    if ((y >> (32 - k) & 1) != 0) {
      product = static_cast<uint64_t>(uint128{product} * kRoots[k] >> 62);
    }
  }
  return product >> whole;
}

}  // namespace otcuda
