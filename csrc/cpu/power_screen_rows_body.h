// SPDX-License-Identifier: Apache-2.0
// Rows of coordinates into the small integers of power_screen, once for all instruction sets: loops
// of 8 and 16 that the compiler turns into vectors. Internal linkage, as in power_argmax_body.h.
#pragma once

#include "cpu/power_screen_kernel.h"

namespace otcuda::cpu {
namespace {

// Eight numbers anywhere in memory; the compiler makes them what the instruction set has.
typedef float Floats __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(32), aligned(4), may_alias));
typedef float Fours __attribute__((vector_size(16), aligned(4), may_alias));
typedef double Doubles __attribute__((vector_size(32), aligned(8), may_alias));
typedef int8_t Bytes __attribute__((vector_size(32), aligned(1), may_alias));
typedef int16_t Shorts __attribute__((vector_size(32), aligned(2), may_alias));

// Sixteen of them.
typedef float Numbers __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(64), aligned(4), may_alias));
typedef int8_t NumbersBytes __attribute__((vector_size(64), aligned(1), may_alias));

constexpr Integers kTurnedBy8 = {8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7};
constexpr Integers kTurnedBy4 = {4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11};
constexpr Integers kTurnedBy2 = {2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13};
constexpr Integers kTurnedBy1 = {1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14};
constexpr Integers kFirstOfFour = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
constexpr NumbersBytes kLowBytesOfFour = {
    0,  4,  8,  12, 1,  5,  9,  13, 2,  6,  10, 14, 3,  7,  11, 15, 16, 20, 24, 28, 17, 21,
    25, 29, 18, 22, 26, 30, 19, 23, 27, 31, 32, 36, 40, 44, 33, 37, 41, 45, 34, 38, 42, 46,
    35, 39, 43, 47, 48, 52, 56, 60, 49, 53, 57, 61, 50, 54, 58, 62, 51, 55, 59, 63};
constexpr float kShift = 12582912.0f;  // 1.5 2^23: what is added to it is rounded to an integer

inline __attribute__((always_inline)) void screen_raise(Integers* a, const Integers& b) {
  *a = b > *a ? b : *a;
}

// Eight numbers of a row of which `left` are left, then zeros.
inline __attribute__((always_inline)) void screen_load(const float* row, int64_t left, Floats* to) {
  if (left >= 8) {
    *to = *reinterpret_cast<const Floats*>(row);
    return;
  }
  *to = Floats{};
  for (int64_t k = 0; k < left; ++k) (*to)[k] = row[k];
}

// Of each row, the bits of the largest |row - centre|.
inline void screen_largest(const float* row, const float* centre, int64_t rows, int64_t D,
                           uint32_t* largest) {
  for (int64_t i = 0; i < rows; ++i, row += D) {
    Integers most = {};
    int64_t d = 0;
    for (; d + 16 <= D; d += 16) {
      const Numbers v = *(const Numbers*)(row + d) - *(const Numbers*)(centre + d);
      const Integers bits = (Integers)v & 0x7fffffff;  // NaN and inf are largest
      screen_raise(&most, bits);
      __builtin_prefetch(reinterpret_cast<const char*>(row + d) + 8192);
    }
    screen_raise(&most, __builtin_shuffle(most, kTurnedBy8));
    for (; d < D; d += 8) {
      Floats a, from;
      screen_load(row + d, D - d, &a);
      screen_load(centre + d, D - d, &from);
      a -= from;
      const Ints bits = reinterpret_cast<const Ints&>(a) & 0x7fffffff;
      for (int k = 0; k < 8; ++k) most[k] = bits[k] > most[k] ? bits[k] : most[k];
    }
    screen_raise(&most, __builtin_shuffle(most, kTurnedBy4));
    screen_raise(&most, __builtin_shuffle(most, kTurnedBy2));
    largest[i] = static_cast<uint32_t>(most[0] > most[1] ? most[0] : most[1]);
  }
}

inline float screen_sum(const Floats& a) {
  return ((a[0] + a[4]) + (a[1] + a[5])) + ((a[2] + a[6]) + (a[3] + a[7]));
}

// |row - centre| <= 127.4 unit. Sums are in float, `middle` in double.
template <bool kWide>
inline ScreenRowSums screen_quantise(const ScreenRow& row, const float* other) {
  const ScreenRow r = row;  // which writing bytes does not change
  constexpr Bytes kLowBytes = {0, 4, 8, 12, 16, 20, 24, 28};
  Floats residue = {}, square = {}, whole = {};
  Doubles middle = {}, more = {};
  Ints integers = {}, total = {}, lanes = {}, halves = {};
  int32_t* start = r.start;
  int32_t most = 0;
  const int64_t bytes = (r.D + 3) / 4 * 4;
  for (int64_t d = 0; d < r.D; d += 8) {
    Floats a, from;
    screen_load(r.row + d, r.D - d, &a);
    screen_load(r.centre + d, r.D - d, &from);
    const Floats v = a - from;
    const Floats shifted = v * r.inverse + kShift;
    const Ints k = reinterpret_cast<const Ints&>(shifted) - 0x4b400000;
    const Floats left = v - __builtin_convertvector(k, Floats) * r.unit;
    residue += left * left;
    square += v * v;
    whole += a * a;
    if (other != nullptr) {
      screen_load(other + d, r.D - d, &from);
      Fours half[2], with[2];
      __builtin_memcpy(half, &a, sizeof a);
      __builtin_memcpy(with, &from, sizeof from);
      middle +=
          __builtin_convertvector(half[0], Doubles) * __builtin_convertvector(with[0], Doubles);
      more += __builtin_convertvector(half[1], Doubles) * __builtin_convertvector(with[1], Doubles);
    }
    integers += k * k;
    total += k;
    if constexpr (!kWide) {
      lanes += k * k;
      halves += k;
    }
    if (!kWide && (d % (4 * kScreenSteps) == 4 * kScreenSteps - 8 || d + 8 >= r.D)) {
      const int32_t low = lanes[0] + lanes[1] + lanes[4] + lanes[5];
      const int32_t high = lanes[2] + lanes[3] + lanes[6] + lanes[7];
      most = low > most ? low : most;
      most = high > most ? high : most;
      lanes = Ints{};
      if (start != nullptr) {
        const uint32_t first = uint32_t(halves[0] + halves[1] + halves[4] + halves[5]);
        const uint32_t second = uint32_t(halves[2] + halves[3] + halves[6] + halves[7]);
        *start++ = int32_t((-kScreenOffset * first & 0xffff) | -kScreenOffset * second << 16);
        halves = Ints{};
      }
    }
    const Ints written = k + r.offset;
    const Bytes low = __builtin_shuffle(reinterpret_cast<const Bytes&>(written), kLowBytes);
    int64_t eight;
    __builtin_memcpy(&eight, &low, 8);
    __builtin_memcpy(r.out + d, &eight, bytes - d < 8 ? 4 : 8);
  }
  ScreenRowSums sums{screen_sum(residue), screen_sum(square), screen_sum(whole), 0, 0, 0, most};
  for (int k = 0; k < 8; ++k) {
    sums.integers += integers[k];
    sums.total += total[k];
  }
  for (int k = 0; k < 4; ++k) sums.middle += middle[k] + more[k];
  return sums;
}

// The same into bfloat16, rounded to nearest; what `integers` sums is their squares.
inline ScreenRowSums screen_halve(const ScreenRow& row, const float* other) {
  const ScreenRow r = row;
  constexpr Shorts kHighHalves = {1, 3, 5, 7, 9, 11, 13, 15};
  Floats residue = {}, square = {}, whole = {}, written = {};
  double middle = 0;
  const int64_t bytes = (r.D + 1) / 2 * 4;
  for (int64_t d = 0; d < r.D; d += 8) {
    Floats a, from;
    screen_load(r.row + d, r.D - d, &a);
    screen_load(r.centre + d, r.D - d, &from);
    const Floats v = a - from, scaled = v * r.inverse;
    const Ints bits = reinterpret_cast<const Ints&>(scaled);
    const Ints near = (bits + 0x7fff + (bits >> 16 & 1)) & Ints(~0xffff - Ints{});
    const Floats half = reinterpret_cast<const Floats&>(near), left = v - half * r.unit;
    residue += left * left;
    square += v * v;
    whole += a * a;
    written += half * half;
    if (other != nullptr) {
      screen_load(other + d, r.D - d, &from);
      for (int k = 0; k < 8; ++k) middle += double(a[k]) * double(from[k]);
    }
    const Shorts high = __builtin_shuffle(reinterpret_cast<const Shorts&>(near), kHighHalves);
    const int64_t still = bytes - 2 * d;
    __builtin_memcpy(r.out + 2 * d, &high, still < 16 ? still : 16);
  }
  return {screen_sum(residue),
          screen_sum(square),
          screen_sum(whole),
          middle,
          double(screen_sum(written)),
          0,
          0};
}

// The sums of the lanes of three vectors, in lanes 0, 4 and 8.
inline __attribute__((always_inline)) void screen_sums(const Numbers& a, const Numbers& b,
                                                       const Numbers& c, Numbers* sums) {
  constexpr Integers kLow = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23};
  constexpr Integers kHigh = {8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31};
  constexpr Integers kEven = {0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27};
  constexpr Integers kOdd = {4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31};
  const Numbers ab = __builtin_shuffle(a, b, kLow) + __builtin_shuffle(a, b, kHigh);
  const Numbers cc = c + __builtin_shuffle(c, kTurnedBy8);
  Numbers sum = __builtin_shuffle(ab, cc, kEven) + __builtin_shuffle(ab, cc, kOdd);
  sum += __builtin_shuffle(sum, kTurnedBy2);
  *sums = sum + __builtin_shuffle(sum, kTurnedBy1);
}

// Sixteen coordinates of a target; integers and their squares are exact in float.
inline __attribute__((always_inline)) void screen_sixteen(const float* row, const float* centre,
                                                          float unit, float inverse, int8_t* out,
                                                          Integers counted, Numbers (&sums)[3]) {
  const Numbers v = *(const Numbers*)row - *(const Numbers*)centre;
  const Numbers shifted = v * inverse + kShift;
  const NumbersBytes low = __builtin_shuffle((NumbersBytes)shifted, kLowBytesOfFour);
  const Integers four = __builtin_shuffle((Integers)low, kFirstOfFour);
  __builtin_memcpy(out, &four, 16);
  Numbers integer = shifted - kShift;
  Numbers left = v - integer * unit;
  left = (Numbers)((Integers)left & counted);
  integer = (Numbers)((Integers)integer & counted);
  sums[0] += left * left;
  sums[1] += integer * integer;
  sums[2] += integer;
}

// Bytes, at least sixteen a row; of a last sixteen that overlap, the ones before do not count.
inline void screen_bytes(const ScreenTargets& targets) {
  const ScreenTargets t = targets;
  const float unit = t.unit, inverse = 1 / unit;
  const int64_t row = (t.D + 3) / 4 * 4, D = t.D;
  Integers last;
  for (int k = 0; k < 16; ++k) last[k] = k < 16 - D % 16 ? 0 : -1;
  for (int64_t i = 0; i < t.count; ++i) {
    const float* const from = t.y + t.order[i] * D;
    int8_t* const to = t.integers + i * row;
    Numbers sums[3] = {};
    int64_t d = 0;
    for (; d + 16 <= D; d += 16) {
      screen_sixteen(from + d, t.centre + d, unit, inverse, to + d, Integers{} - 1, sums);
    }
    if (d < D) {
      d = D - 16;
      screen_sixteen(from + d, t.centre + d, unit, inverse, to + d, last, sums);
      for (d = D; d < row; ++d) to[d] = 0;
    }
    Numbers sum;
    screen_sums(sums[0], sums[1], sums[2], &sum);
    t.residue[i] = sum[0];
    t.norm[i] = sum[4];
    t.total[i] = static_cast<int32_t>(sum[8]);
  }
}

// Row by row, as samples are. Returns the most that a 16-bit sum has of integer^2.
inline int32_t screen_rows(const ScreenTargets& t,
                           ScreenRowSums (*quantise)(const ScreenRow&, const float*)) {
  int32_t most = 0;
  for (int64_t i = 0; i < t.count; ++i) {
    int32_t* const start = t.start != nullptr ? t.start + i * t.sums : nullptr;
    const ScreenRowSums sums = quantise({t.y + t.order[i] * t.D, t.centre, t.D, t.unit, 1 / t.unit,
                                         0, start, t.integers + i * 4 * t.steps},
                                        t.other);
    t.residue[i] = sums.residue;
    t.norm[i] = static_cast<float>(sums.integers);
    t.total[i] = sums.total;
    if (t.other != nullptr) t.lift[i] = sums.middle;
    most = sums.most_lane > most ? sums.most_lane : most;
  }
  return most;
}

// Integers of a group and what they are off by. From sums of squares to norms, not below them: sums
// of D floats, v = row - centre and unit * integer rounded to float, and six roundings here.
template <bool kWide, bool kHalves>
void screen_targets(ScreenTargets* targets) {
  const ScreenTargets t = *targets;
  if (kWide && !kHalves && t.other == nullptr && t.D >= 16) {
    screen_bytes(t);
  } else {
    targets->most_lane = screen_rows(t, kHalves ? &screen_halve : &screen_quantise<kWide>);
  }
  const float raise = 1.000002f + static_cast<float>(t.D + 8) * 1.2e-7f, tiny = 1e-37f;
  float norm = 0, residue = 0, reach = 0;
  for (int64_t i = 0; i < t.count; ++i) {
    const float own = t.unit * __builtin_sqrtf(t.norm[i]) * raise + tiny;
    const float left = __builtin_sqrtf(t.residue[i]) * raise;
    const float off = left + 3.2e-7f * (own + left) + tiny;
    t.norm[i] = own;
    t.residue[i] = off;
    norm = own > norm ? own : norm;
    residue = off > residue ? off : residue;
    reach = own + off > reach ? own + off : reach;
  }
  targets->most_norm = norm;
  targets->most_residue = residue;
  targets->most_reach = reach * 1.000001f;
}

}  // namespace
}  // namespace otcuda::cpu
