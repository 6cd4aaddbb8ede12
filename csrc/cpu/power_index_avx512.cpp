// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/power_index_body.h"

namespace otcuda::cpu {
namespace {

struct Lanes {
  static uint32_t at_least(const float (&a)[kTreeWidth], float b) {
    return _mm512_cmp_ps_mask(_mm512_loadu_ps(a), _mm512_set1_ps(b), _CMP_GE_OQ);
  }
  static uint32_t at_least(const double (&a)[kTreeWidth], double b) {
    const __m512d least = _mm512_set1_pd(b);
    const uint32_t low = _mm512_cmp_pd_mask(_mm512_loadu_pd(a), least, _CMP_GE_OQ);
    const uint32_t high = _mm512_cmp_pd_mask(_mm512_loadu_pd(a + 8), least, _CMP_GE_OQ);
    return low | high << 8;
  }
  static void scores(const float* x, const float* y, const float* h, int64_t D,
                     float (&score)[kTreeWidth]) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t d = 0; d < D; ++d) {
      sum = _mm512_fmadd_ps(_mm512_set1_ps(x[d]), _mm512_loadu_ps(y + d * kTreeWidth), sum);
    }
    _mm512_storeu_ps(score, _mm512_add_ps(sum, _mm512_loadu_ps(h)));
  }
  static void scores(const double* x, const double* y, const double* h, int64_t D,
                     double (&score)[kTreeWidth]) {
    __m512d low = _mm512_setzero_pd(), high = low;
    for (int64_t d = 0; d < D; ++d) {
      const __m512d at = _mm512_set1_pd(x[d]);
      low = _mm512_fmadd_pd(at, _mm512_loadu_pd(y + d * kTreeWidth), low);
      high = _mm512_fmadd_pd(at, _mm512_loadu_pd(y + d * kTreeWidth + 8), high);
    }
    _mm512_storeu_pd(score, _mm512_add_pd(low, _mm512_loadu_pd(h)));
    _mm512_storeu_pd(score + 8, _mm512_add_pd(high, _mm512_loadu_pd(h + 8)));
  }
};

}  // namespace

TreeKernels power_index_avx512() { return kernels_of_tree<Lanes>(); }

}  // namespace otcuda::cpu
