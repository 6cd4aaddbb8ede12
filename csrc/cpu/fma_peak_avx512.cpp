// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/fma_peak_body.h"

namespace otcuda::cpu {
namespace {

struct Lanes {
  using Vector = __m512;
  static constexpr int kLanes = 16;

  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector half() { return _mm512_set1_ps(0.5f); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
};

}  // namespace

double fma_spin_avx512(int64_t rounds) { return spin<Lanes>(rounds); }

}  // namespace otcuda::cpu
