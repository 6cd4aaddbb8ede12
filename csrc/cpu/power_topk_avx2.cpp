// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/power_topk_body.h"

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
  static Vector min(Vector a, Vector b) { return _mm256_min_ps(a, b); }
  static void keep_place(Vector highest, Vector best, int64_t here, int32_t* places) {
    const auto to = reinterpret_cast<__m256i*>(places);
    const auto stays = _mm256_castps_si256(_mm256_cmp_ps(highest, best, _CMP_NGT_UQ));
    const __m256i place = _mm256_set1_epi32(static_cast<int32_t>(here));
    _mm256_store_si256(to, _mm256_blendv_epi8(place, _mm256_load_si256(to), stays));
  }
  static uint32_t bits(uint32_t mask) { return mask; }
  static uint32_t above(Vector a, Vector b) {
    return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)));
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
  static Vector min(Vector a, Vector b) { return _mm256_min_pd(a, b); }
  static void keep_place(Vector highest, Vector best, int64_t here, int64_t* places) {
    const auto to = reinterpret_cast<__m256i*>(places);
    const auto stays = _mm256_castpd_si256(_mm256_cmp_pd(highest, best, _CMP_NGT_UQ));
    const __m256i place = _mm256_set1_epi64x(static_cast<int64_t>(here));
    _mm256_store_si256(to, _mm256_blendv_epi8(place, _mm256_load_si256(to), stays));
  }
  static uint32_t bits(uint32_t mask) { return mask; }
  static uint32_t above(Vector a, Vector b) {
    return uint32_t(_mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_GT_OQ)));
  }
};

}  // namespace

TopkKernels power_topk_avx2() { return {topk_kernel<Lanes32>(), topk_kernel<Lanes64>()}; }

}  // namespace otcuda::cpu
