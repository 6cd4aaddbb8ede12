// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/top_cells_body.h"

namespace otcuda::cpu {
namespace {

// 4 targets x 3 vectors: 12 sums, 3 vectors of samples and one target fill the 16 registers.
struct Lanes {
  using Vector = __m256;
  static constexpr int kLanes = 8, kVectors = 3, kTargets = 4, kHalfTargets = 4;

  static Vector fill(float a) { return _mm256_set1_ps(a); }
  static Vector load(const float* from) { return _mm256_load_ps(from); }
  static void store(float* to, Vector a) { _mm256_store_ps(to, a); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
  static Vector min(Vector a, Vector b) { return _mm256_min_ps(a, b); }
  static uint32_t bits(uint32_t mask) { return mask; }
  static uint32_t above(Vector a, Vector b) {
    return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)));
  }
};

}  // namespace

TopCellsKernels top_cells_avx2() { return kernels_of<Lanes>(); }

}  // namespace otcuda::cpu
