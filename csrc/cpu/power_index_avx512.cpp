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
};

}  // namespace

TreeKernels power_index_avx512() { return kernels_of_tree<Lanes>(); }

}  // namespace otcuda::cpu
