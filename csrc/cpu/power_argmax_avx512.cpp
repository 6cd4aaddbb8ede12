// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/power_argmax_few_body.h"

namespace otcuda::cpu {
namespace {

// 6 targets x 4 vectors: 24 sums, 4 vectors of samples and one target in 32 registers.
struct Lanes32 {
  using Value = float;
  using Vector = __m512;
  using Places = __m512i;
  static constexpr int kLanes = 16, kVectors = 4, kTargets = 6, kStreamD = 4, kChunk = 256;
  static constexpr int kGroupTiles = 2;
  static constexpr int kFewTiles = 2;

  static Vector fill(float a) { return _mm512_set1_ps(a); }
  static Vector load(const float* from) { return _mm512_load_ps(from); }
  static Vector loadu(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, Vector a) { _mm512_store_ps(to, a); }
  static Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector max(Vector a, Vector b) { return _mm512_maskz_max_ps(0xFFFF, a, b); }
  static Places places(int64_t first) { return _mm512_set1_epi32(static_cast<int32_t>(first)); }
  static Places next(Places here) { return _mm512_add_epi32(here, _mm512_set1_epi32(kTargets)); }
  static void keep_place(Vector highest, Vector best, Places here, int32_t* to) {
    const __mmask16 beats = _mm512_cmp_ps_mask(highest, best, _CMP_GT_OQ);
    _mm512_store_si512(to, _mm512_mask_mov_epi32(_mm512_load_si512(to), beats, here));
  }
  // Numbers that lie side by side, in all lanes: the first in even ones, the second in odd ones.
  static Vector both(const float* from) {
    double pair;
    __builtin_memcpy(&pair, from, sizeof(pair));
    return _mm512_castpd_ps(_mm512_set1_pd(pair));
  }
  static Vector first_of(Vector a) { return _mm512_maskz_moveldup_ps(0xFFFF, a); }
  static Vector second_of(Vector a) { return _mm512_maskz_movehdup_ps(0xFFFF, a); }
  // Each vector is loaded from four rows; then neighbouring rows are interleaved.
  static OTCUDA_INLINE void columns(const float* y, int64_t D, Vector (&c)[4]) {
    constexpr __mmask16 kAll = 0xFFFF;  // without a mask g++ 12 warns of its own headers
    Vector r[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      r[k] = _mm512_castps128_ps512(_mm_loadu_ps(y + k * D));
      r[k] = _mm512_insertf32x4(r[k], _mm_loadu_ps(y + (k + 4) * D), 1);
      r[k] = _mm512_insertf32x4(r[k], _mm_loadu_ps(y + (k + 8) * D), 2);
      r[k] = _mm512_insertf32x4(r[k], _mm_loadu_ps(y + (k + 12) * D), 3);
    }
    const Vector a = _mm512_maskz_unpacklo_ps(kAll, r[0], r[1]);
    const Vector b = _mm512_maskz_unpackhi_ps(kAll, r[0], r[1]);
    const Vector e = _mm512_maskz_unpacklo_ps(kAll, r[2], r[3]);
    const Vector f = _mm512_maskz_unpackhi_ps(kAll, r[2], r[3]);
    c[0] = _mm512_maskz_shuffle_ps(kAll, a, e, 0x44);
    c[1] = _mm512_maskz_shuffle_ps(kAll, a, e, 0xee);
    c[2] = _mm512_maskz_shuffle_ps(kAll, b, f, 0x44);
    c[3] = _mm512_maskz_shuffle_ps(kAll, b, f, 0xee);
  }
};

struct Lanes64 {
  using Value = double;
  using Vector = __m512d;
  using Places = __m512i;
  static constexpr int kLanes = 8, kVectors = 4, kTargets = 6, kStreamD = 4, kChunk = 256;
  static constexpr int kGroupTiles = 2;
  static constexpr int kFewTiles = 2;

  static Vector fill(double a) { return _mm512_set1_pd(a); }
  static Vector load(const double* from) { return _mm512_load_pd(from); }
  static Vector loadu(const double* from) { return _mm512_loadu_pd(from); }
  static void store(double* to, Vector a) { _mm512_store_pd(to, a); }
  static Vector mul(Vector a, Vector b) { return _mm512_mul_pd(a, b); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_pd(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm512_add_pd(a, b); }
  static Vector max(Vector a, Vector b) { return _mm512_maskz_max_pd(0xFF, a, b); }
  static Places places(int64_t first) { return _mm512_set1_epi64(static_cast<int64_t>(first)); }
  static Places next(Places here) { return _mm512_add_epi64(here, _mm512_set1_epi64(kTargets)); }
  static void keep_place(Vector highest, Vector best, Places here, int64_t* to) {
    const __mmask8 beats = _mm512_cmp_pd_mask(highest, best, _CMP_GT_OQ);
    _mm512_store_si512(to, _mm512_mask_mov_epi64(_mm512_load_si512(to), beats, here));
  }
  static OTCUDA_INLINE void columns(const double* y, int64_t D, Vector (&c)[4]) {
    constexpr __mmask8 kAll = 0xFF;
    Vector r[4];  // rows 0 and 2, 1 and 3, 4 and 6, 5 and 7
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      const double* const row = y + (k / 2 * 4 + k % 2) * D;
      r[k] = _mm512_castpd256_pd512(_mm256_loadu_pd(row));
      r[k] = _mm512_maskz_insertf64x4(kAll, r[k], _mm256_loadu_pd(row + 2 * D), 1);
    }
    const Vector a = _mm512_maskz_unpacklo_pd(kAll, r[0], r[1]);
    const Vector b = _mm512_maskz_unpackhi_pd(kAll, r[0], r[1]);
    const Vector e = _mm512_maskz_unpacklo_pd(kAll, r[2], r[3]);
    const Vector f = _mm512_maskz_unpackhi_pd(kAll, r[2], r[3]);
    c[0] = _mm512_maskz_shuffle_f64x2(kAll, a, e, 0x88);
    c[1] = _mm512_maskz_shuffle_f64x2(kAll, b, f, 0x88);
    c[2] = _mm512_maskz_shuffle_f64x2(kAll, a, e, 0xdd);
    c[3] = _mm512_maskz_shuffle_f64x2(kAll, b, f, 0xdd);
  }
};

// 16 samples: 12 and 24 sums.
struct Narrow32 : Lanes32 {
  static constexpr int kVectors = 1, kTargets = 12, kStreamD = 0, kGroupTiles = 1, kPairs = 6;
  static Places next(Places here) { return _mm512_add_epi32(here, _mm512_set1_epi32(kTargets)); }
};
struct Narrow64 : Lanes64 {
  static constexpr int kVectors = 2, kTargets = 12, kStreamD = 0, kGroupTiles = 1, kPairs = 0;
  static Places next(Places here) { return _mm512_add_epi64(here, _mm512_set1_epi64(kTargets)); }
};

}  // namespace

ArgmaxKernels power_argmax_avx512() {
  return {kernel_with_few<Lanes32, Narrow32>(), kernel_with_few<Lanes64, Narrow64>()};
}

}  // namespace otcuda::cpu
