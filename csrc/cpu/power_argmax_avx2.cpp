// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/power_argmax_few_body.h"

namespace otcuda::cpu {
namespace {

// 4 targets x 3 vectors: 12 sums, 3 vectors of samples and one target fill the 16 registers.
struct Lanes32 {
  using Value = float;
  using Vector = __m256;
  using Places = __m256i;
  static constexpr int kLanes = 8, kVectors = 3, kTargets = 4, kStreamD = 4, kChunk = 128;
  static constexpr int kGroupTiles = 4;

  static Vector fill(float a) { return _mm256_set1_ps(a); }
  static Vector load(const float* from) { return _mm256_load_ps(from); }
  static Vector loadu(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Vector a) { _mm256_store_ps(to, a); }
  static Vector mul(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
  static Places places(int64_t first) { return _mm256_set1_epi32(static_cast<int32_t>(first)); }
  static Places next(Places here) { return _mm256_add_epi32(here, _mm256_set1_epi32(kTargets)); }
  static void keep_place(Vector highest, Vector best, Places here, int32_t* places) {
    const auto to = reinterpret_cast<__m256i*>(places);
    const auto stays = _mm256_castps_si256(_mm256_cmp_ps(highest, best, _CMP_NGT_UQ));
    _mm256_store_si256(to, _mm256_blendv_epi8(here, _mm256_load_si256(to), stays));
  }
  // Neighbouring rows are interleaved, by one number, by two, by four.
  static OTCUDA_INLINE void transpose(Vector (&r)[kLanes]) {
    Vector t[kLanes];
#pragma GCC unroll 8
    for (int k = 0; k < 8; k += 2) {
      t[k] = _mm256_unpacklo_ps(r[k], r[k + 1]);
      t[k + 1] = _mm256_unpackhi_ps(r[k], r[k + 1]);
    }
#pragma GCC unroll 8
    for (int k = 0; k < 8; k += 4) {
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        r[k + 2 * j] = _mm256_shuffle_ps(t[k + j], t[k + j + 2], 0x44);
        r[k + 2 * j + 1] = _mm256_shuffle_ps(t[k + j], t[k + j + 2], 0xee);
      }
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      t[k] = _mm256_permute2f128_ps(r[k], r[k + 4], 0x20);
      t[k + 4] = _mm256_permute2f128_ps(r[k], r[k + 4], 0x31);
    }
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) r[k] = t[k];
  }
};

struct Lanes64 {
  using Value = double;
  using Vector = __m256d;
  using Places = __m256i;
  static constexpr int kLanes = 4, kVectors = 3, kTargets = 4, kStreamD = 4, kChunk = 128;
  static constexpr int kGroupTiles = 4;

  static Vector fill(double a) { return _mm256_set1_pd(a); }
  static Vector load(const double* from) { return _mm256_load_pd(from); }
  static Vector loadu(const double* from) { return _mm256_loadu_pd(from); }
  static void store(double* to, Vector a) { _mm256_store_pd(to, a); }
  static Vector mul(Vector a, Vector b) { return _mm256_mul_pd(a, b); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_pd(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm256_add_pd(a, b); }
  static Vector max(Vector a, Vector b) { return _mm256_max_pd(a, b); }
  static Places places(int64_t first) { return _mm256_set1_epi64x(static_cast<int64_t>(first)); }
  static Places next(Places here) { return _mm256_add_epi64(here, _mm256_set1_epi64x(kTargets)); }
  static void keep_place(Vector highest, Vector best, Places here, int64_t* places) {
    const auto to = reinterpret_cast<__m256i*>(places);
    const auto stays = _mm256_castpd_si256(_mm256_cmp_pd(highest, best, _CMP_NGT_UQ));
    _mm256_store_si256(to, _mm256_blendv_epi8(here, _mm256_load_si256(to), stays));
  }
  static OTCUDA_INLINE void transpose(Vector (&r)[kLanes]) {
    Vector t[kLanes];
#pragma GCC unroll 4
    for (int k = 0; k < 4; k += 2) {
      t[k] = _mm256_unpacklo_pd(r[k], r[k + 1]);
      t[k + 1] = _mm256_unpackhi_pd(r[k], r[k + 1]);
    }
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      r[k] = _mm256_permute2f128_pd(t[k], t[k + 2], 0x20);
      r[k + 2] = _mm256_permute2f128_pd(t[k], t[k + 2], 0x31);
    }
  }
};

}  // namespace

ArgmaxKernels power_argmax_avx2() {
  return {kernel_with_few<Lanes32>(), kernel_with_few<Lanes64>()};
}

}  // namespace otcuda::cpu
