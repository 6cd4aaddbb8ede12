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
  // Neighbouring rows are interleaved, by one number, by two, by four, by eight.
  static OTCUDA_INLINE void transpose(Vector (&r)[kLanes]) {
    constexpr __mmask16 kAll = 0xFFFF;  // without a mask g++ 12 warns of its own headers
    Vector t[kLanes];
#pragma GCC unroll 16
    for (int k = 0; k < 16; k += 2) {
      t[k] = _mm512_maskz_unpacklo_ps(kAll, r[k], r[k + 1]);
      t[k + 1] = _mm512_maskz_unpackhi_ps(kAll, r[k], r[k + 1]);
    }
#pragma GCC unroll 16
    for (int k = 0; k < 16; k += 4) {
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        r[k + 2 * j] = _mm512_maskz_shuffle_ps(kAll, t[k + j], t[k + j + 2], 0x44);
        r[k + 2 * j + 1] = _mm512_maskz_shuffle_ps(kAll, t[k + j], t[k + j + 2], 0xee);
      }
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      t[k] = _mm512_maskz_shuffle_f32x4(kAll, r[k], r[k + 4], 0x88);
      t[k + 4] = _mm512_maskz_shuffle_f32x4(kAll, r[k], r[k + 4], 0xdd);
      t[k + 8] = _mm512_maskz_shuffle_f32x4(kAll, r[k + 8], r[k + 12], 0x88);
      t[k + 12] = _mm512_maskz_shuffle_f32x4(kAll, r[k + 8], r[k + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      r[k] = _mm512_maskz_shuffle_f32x4(kAll, t[k], t[k + 8], 0x88);
      r[k + 8] = _mm512_maskz_shuffle_f32x4(kAll, t[k], t[k + 8], 0xdd);
      r[k + 4] = _mm512_maskz_shuffle_f32x4(kAll, t[k + 4], t[k + 12], 0x88);
      r[k + 12] = _mm512_maskz_shuffle_f32x4(kAll, t[k + 4], t[k + 12], 0xdd);
    }
  }
};

struct Lanes64 {
  using Value = double;
  using Vector = __m512d;
  using Places = __m512i;
  static constexpr int kLanes = 8, kVectors = 4, kTargets = 6, kStreamD = 4, kChunk = 256;
  static constexpr int kGroupTiles = 2;

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
  static OTCUDA_INLINE void transpose(Vector (&r)[kLanes]) {
    constexpr __mmask8 kAll = 0xFF;
    Vector t[kLanes];
#pragma GCC unroll 8
    for (int k = 0; k < 8; k += 2) {
      t[k] = _mm512_maskz_unpacklo_pd(kAll, r[k], r[k + 1]);
      t[k + 1] = _mm512_maskz_unpackhi_pd(kAll, r[k], r[k + 1]);
    }
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      r[k] = _mm512_maskz_shuffle_f64x2(kAll, t[k], t[k + 2], 0x88);
      r[k + 2] = _mm512_maskz_shuffle_f64x2(kAll, t[k], t[k + 2], 0xdd);
      r[k + 4] = _mm512_maskz_shuffle_f64x2(kAll, t[k + 4], t[k + 6], 0x88);
      r[k + 6] = _mm512_maskz_shuffle_f64x2(kAll, t[k + 4], t[k + 6], 0xdd);
    }
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      t[k] = _mm512_maskz_shuffle_f64x2(kAll, r[k], r[k + 4], 0x88);
      t[k + 4] = _mm512_maskz_shuffle_f64x2(kAll, r[k], r[k + 4], 0xdd);
      t[k + 2] = _mm512_maskz_shuffle_f64x2(kAll, r[k + 2], r[k + 6], 0x88);
      t[k + 6] = _mm512_maskz_shuffle_f64x2(kAll, r[k + 2], r[k + 6], 0xdd);
    }
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) r[k] = t[k];
  }
};

}  // namespace

ArgmaxKernels power_argmax_avx512() {
  return {kernel_with_few<Lanes32>(), kernel_with_few<Lanes64>()};
}

}  // namespace otcuda::cpu
