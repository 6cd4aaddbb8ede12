// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/power_screen_chains_body.h"

namespace otcuda::cpu {
namespace {

struct Lanes {
  using Vector = __m512;
  static constexpr int kLanes = 16, kStep = 8;

  static Vector fill(float a) { return _mm512_set1_ps(a); }
  static Vector loadu(const float* from) { return _mm512_loadu_ps(from); }
  static void storeu(float* to, Vector a) { _mm512_storeu_ps(to, a); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }

  // Two rows in the halves of a vector: loads do some of the transposing.
  static inline __attribute__((always_inline)) Vector pair(const float* low, const float* high) {
    const Vector both = _mm512_maskz_broadcast_f32x8(0x00ff, _mm256_loadu_ps(low));
    return _mm512_mask_broadcast_f32x8(both, 0xff00, _mm256_loadu_ps(high));
  }
  // Four rows are interleaved in each quarter.
  static inline __attribute__((always_inline)) void interleave(const Vector (&r)[8], int k,
                                                               Vector (&out)[8]) {
    constexpr __mmask16 kAll = 0xffff;  // without a mask g++ 12 warns of its own headers
    const Vector low = _mm512_maskz_unpacklo_ps(kAll, r[k], r[k + 1]);
    const Vector high = _mm512_maskz_unpackhi_ps(kAll, r[k], r[k + 1]);
    const Vector low2 = _mm512_maskz_unpacklo_ps(kAll, r[k + 2], r[k + 3]);
    const Vector high2 = _mm512_maskz_unpackhi_ps(kAll, r[k + 2], r[k + 3]);
    out[k] = _mm512_maskz_shuffle_ps(kAll, low, low2, 0x44);
    out[k + 1] = _mm512_maskz_shuffle_ps(kAll, low, low2, 0xee);
    out[k + 2] = _mm512_maskz_shuffle_ps(kAll, high, high2, 0x44);
    out[k + 3] = _mm512_maskz_shuffle_ps(kAll, high, high2, 0xee);
  }
  static inline __attribute__((always_inline)) void columns(const float* const* rows, int64_t d,
                                                            Vector (&out)[8]) {
    constexpr __mmask16 kAll = 0xffff;
    Vector r[8], t[8];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      r[k] = pair(rows[k] + d, rows[k + 4] + d);
      r[k + 4] = pair(rows[k + 8] + d, rows[k + 12] + d);
    }
    interleave(r, 0, t);
    interleave(r, 4, t);
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      out[k] = _mm512_maskz_shuffle_f32x4(kAll, t[k], t[k + 4], 0x88);
      out[k + 4] = _mm512_maskz_shuffle_f32x4(kAll, t[k], t[k + 4], 0xdd);
    }
  }
};

}  // namespace

void power_screen_chains_avx512(const ScreenPairs& pairs) { screen_chains<Lanes>(pairs); }

}  // namespace otcuda::cpu
