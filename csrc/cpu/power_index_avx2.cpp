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
};

}  // namespace

TreeKernels power_index_avx2() { return kernels_of_tree<Lanes>(); }

}  // namespace otcuda::cpu
