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
  static constexpr int kFewTiles = 1;

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
  // Each vector is loaded from two rows; then neighbouring rows are interleaved.
  static OTCUDA_INLINE void columns(const float* y, int64_t D, Vector (&c)[4]) {
    Vector r[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      r[k] = _mm256_castps128_ps256(_mm_loadu_ps(y + k * D));
      r[k] = _mm256_insertf128_ps(r[k], _mm_loadu_ps(y + (k + 4) * D), 1);
    }
    const Vector a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
    const Vector e = _mm256_unpacklo_ps(r[2], r[3]), f = _mm256_unpackhi_ps(r[2], r[3]);
    c[0] = _mm256_shuffle_ps(a, e, 0x44);
    c[1] = _mm256_shuffle_ps(a, e, 0xee);
    c[2] = _mm256_shuffle_ps(b, f, 0x44);
    c[3] = _mm256_shuffle_ps(b, f, 0xee);
  }
};

struct Lanes64 {
  using Value = double;
  using Vector = __m256d;
  using Places = __m256i;
  static constexpr int kLanes = 4, kVectors = 3, kTargets = 4, kStreamD = 4, kChunk = 128;
  static constexpr int kGroupTiles = 4;
  static constexpr int kFewTiles = 1;

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
  static OTCUDA_INLINE void columns(const double* y, int64_t D, Vector (&c)[4]) {
    Vector r[4];  // rows 0 and 2, 1 and 3, two coordinates, then the next two
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      const double* const row = y + k % 2 * D + k / 2 * 2;
      r[k] = _mm256_castpd128_pd256(_mm_loadu_pd(row));
      r[k] = _mm256_insertf128_pd(r[k], _mm_loadu_pd(row + 2 * D), 1);
    }
    c[0] = _mm256_unpacklo_pd(r[0], r[1]);
    c[1] = _mm256_unpackhi_pd(r[0], r[1]);
    c[2] = _mm256_unpacklo_pd(r[2], r[3]);
    c[3] = _mm256_unpackhi_pd(r[2], r[3]);
  }
};

// 8 and 4 samples: 12 sums.
struct Narrow32 : Lanes32 {
  static constexpr int kVectors = 1, kTargets = 12, kStreamD = 0, kGroupTiles = 1, kPairs = 0;
  static Places next(Places here) { return _mm256_add_epi32(here, _mm256_set1_epi32(kTargets)); }
};
struct Narrow64 : Lanes64 {
  static constexpr int kVectors = 1, kTargets = 12, kStreamD = 0, kGroupTiles = 1, kPairs = 0;
  static Places next(Places here) { return _mm256_add_epi64(here, _mm256_set1_epi64x(kTargets)); }
};

}  // namespace

ArgmaxKernels power_argmax_avx2() {
  return {kernel_with_few<Lanes32, Narrow32>(), kernel_with_few<Lanes64, Narrow64>()};
}

}  // namespace otcuda::cpu
