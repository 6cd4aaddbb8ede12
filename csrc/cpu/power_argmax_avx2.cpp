// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/power_argmax_body.h"

namespace otcuda::cpu {
namespace {

// 4 targets x 3 vectors: 12 sums, 3 vectors of samples and one target fill the 16 registers.
struct Lanes32 {
  using Value = float;
  using Vector = __m256;
  static constexpr int kLanes = 8, kVectors = 3, kTargets = 4;

  static Vector fill(float a) { return _mm256_set1_ps(a); }
  static Vector load(const float* from) { return _mm256_load_ps(from); }
  static void store(float* to, Vector a) { _mm256_store_ps(to, a); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
  static bool not_above(Vector a, Vector b) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NLE_UQ)) == 0;
  }
  static __m256i load_index(const int32_t* from) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
  }
  static void store_index(int32_t* to, __m256i a) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), a);
  }
  static void improve(Vector score, int64_t place, Vector* best, __m256i* index) {
    const Vector beats = _mm256_and_ps(_mm256_cmp_ps(score, *best, _CMP_NLE_UQ),
                                       _mm256_cmp_ps(score, score, _CMP_ORD_Q));
    *best = _mm256_blendv_ps(*best, score, beats);
    *index =
        _mm256_blendv_epi8(*index, _mm256_set1_epi32(int32_t(place)), _mm256_castps_si256(beats));
  }
};

struct Lanes64 {
  using Value = double;
  using Vector = __m256d;
  static constexpr int kLanes = 4, kVectors = 3, kTargets = 4;

  static Vector fill(double a) { return _mm256_set1_pd(a); }
  static Vector load(const double* from) { return _mm256_load_pd(from); }
  static void store(double* to, Vector a) { _mm256_store_pd(to, a); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_pd(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm256_add_pd(a, b); }
  static Vector max(Vector a, Vector b) { return _mm256_max_pd(a, b); }
  static bool not_above(Vector a, Vector b) {
    return _mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_NLE_UQ)) == 0;
  }
  static __m256i load_index(const int64_t* from) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
  }
  static void store_index(int64_t* to, __m256i a) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), a);
  }
  static void improve(Vector score, int64_t place, Vector* best, __m256i* index) {
    const Vector beats = _mm256_and_pd(_mm256_cmp_pd(score, *best, _CMP_NLE_UQ),
                                       _mm256_cmp_pd(score, score, _CMP_ORD_Q));
    *best = _mm256_blendv_pd(*best, score, beats);
    *index =
        _mm256_blendv_epi8(*index, _mm256_set1_epi64x(int64_t(place)), _mm256_castpd_si256(beats));
  }
};

}  // namespace

ArgmaxKernels power_argmax_avx2() { return {kernel_of<Lanes32>(), kernel_of<Lanes64>()}; }

}  // namespace otcuda::cpu
