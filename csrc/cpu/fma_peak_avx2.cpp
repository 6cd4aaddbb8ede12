// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/fma_peak_body.h"

namespace otcuda::cpu {
namespace {

struct Lanes {
  using Vector = __m256;
  static constexpr int kLanes = 8;

  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector half() { return _mm256_set1_ps(0.5f); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
};

}  // namespace

double fma_spin_avx2(int64_t rounds) { return spin<Lanes>(rounds); }

}  // namespace otcuda::cpu
