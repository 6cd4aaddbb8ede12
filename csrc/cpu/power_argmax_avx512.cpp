// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/power_argmax_body.h"

namespace otcuda::cpu {
namespace {

// 6 targets x 4 vectors: 24 sums, 4 vectors of samples and one target in 32 registers.
struct Lanes32 {
  using Value = float;
  using Vector = __m512;
  static constexpr int kLanes = 16, kVectors = 4, kTargets = 6;

  static Vector fill(float a) { return _mm512_set1_ps(a); }
  static Vector load(const float* from) { return _mm512_load_ps(from); }
  static void store(float* to, Vector a) { _mm512_store_ps(to, a); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector max(Vector a, Vector b) { return _mm512_maskz_max_ps(0xFFFF, a, b); }
  static bool not_above(Vector a, Vector b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLE_UQ) == 0; }
  static __m512i load_index(const int32_t* from) { return _mm512_load_si512(from); }
  static void store_index(int32_t* to, __m512i a) { _mm512_store_si512(to, a); }
  static void improve(Vector score, int64_t place, Vector* best, __m512i* index) {
    const __mmask16 beats = _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(score, score, _CMP_ORD_Q),
                                                    score, *best, _CMP_NLE_UQ);
    *best = _mm512_mask_mov_ps(*best, beats, score);
    *index = _mm512_mask_mov_epi32(*index, beats, _mm512_set1_epi32(int32_t(place)));
  }
};

struct Lanes64 {
  using Value = double;
  using Vector = __m512d;
  static constexpr int kLanes = 8, kVectors = 4, kTargets = 6;

  static Vector fill(double a) { return _mm512_set1_pd(a); }
  static Vector load(const double* from) { return _mm512_load_pd(from); }
  static void store(double* to, Vector a) { _mm512_store_pd(to, a); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_pd(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm512_add_pd(a, b); }
  static Vector max(Vector a, Vector b) { return _mm512_maskz_max_pd(0xFF, a, b); }
  static bool not_above(Vector a, Vector b) { return _mm512_cmp_pd_mask(a, b, _CMP_NLE_UQ) == 0; }
  static __m512i load_index(const int64_t* from) { return _mm512_load_si512(from); }
  static void store_index(int64_t* to, __m512i a) { _mm512_store_si512(to, a); }
  static void improve(Vector score, int64_t place, Vector* best, __m512i* index) {
    const __mmask8 beats = _mm512_mask_cmp_pd_mask(_mm512_cmp_pd_mask(score, score, _CMP_ORD_Q),
                                                   score, *best, _CMP_NLE_UQ);
    *best = _mm512_mask_mov_pd(*best, beats, score);
    *index = _mm512_mask_mov_epi64(*index, beats, _mm512_set1_epi64(int64_t(place)));
  }
};

}  // namespace

ArgmaxKernels power_argmax_avx512() { return {kernel_of<Lanes32>(), kernel_of<Lanes64>()}; }

}  // namespace otcuda::cpu
