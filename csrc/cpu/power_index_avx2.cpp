// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/power_index_body.h"

namespace otcuda::cpu {
namespace {

struct Lanes {
  static uint32_t at_least(const float (&a)[kTreeWidth], float b) {
    const __m256 least = _mm256_set1_ps(b);
    const auto bits = [&](int k) {
      return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(a + k), least, _CMP_GE_OQ)));
    };
    return bits(0) | bits(8) << 8;
  }
  static uint32_t at_least(const double (&a)[kTreeWidth], double b) {
    const __m256d least = _mm256_set1_pd(b);
    const auto bits = [&](int k) {
      return uint32_t(_mm256_movemask_pd(_mm256_cmp_pd(_mm256_loadu_pd(a + k), least, _CMP_GE_OQ)));
    };
    return bits(0) | bits(4) << 4 | bits(8) << 8 | bits(12) << 12;
  }
  static void scores(const float* x, const float* y, const float* h, int64_t D,
                     float (&score)[kTreeWidth]) {
    __m256 sum[2] = {};
    for (int64_t d = 0; d < D; ++d) {
      const __m256 at = _mm256_set1_ps(x[d]);
#pragma GCC unroll 2
      for (int k = 0; k < 2; ++k) {
        sum[k] = _mm256_fmadd_ps(at, _mm256_loadu_ps(y + d * kTreeWidth + 8 * k), sum[k]);
      }
    }
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      _mm256_storeu_ps(score + 8 * k, _mm256_add_ps(sum[k], _mm256_loadu_ps(h + 8 * k)));
    }
  }
  static void scores(const double* x, const double* y, const double* h, int64_t D,
                     double (&score)[kTreeWidth]) {
    __m256d sum[4] = {};
    for (int64_t d = 0; d < D; ++d) {
      const __m256d at = _mm256_set1_pd(x[d]);
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        sum[k] = _mm256_fmadd_pd(at, _mm256_loadu_pd(y + d * kTreeWidth + 4 * k), sum[k]);
      }
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      _mm256_storeu_pd(score + 4 * k, _mm256_add_pd(sum[k], _mm256_loadu_pd(h + 4 * k)));
    }
  }
};

}  // namespace

TreeKernels power_index_avx2() { return kernels_of_tree<Lanes>(); }

}  // namespace otcuda::cpu
