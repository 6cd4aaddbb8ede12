// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/power_screen_chains_body.h"

namespace otcuda::cpu {
namespace {

struct Lanes {
  using Vector = __m256;
  static constexpr int kLanes = 8, kStep = 4;

  static Vector fill(float a) { return _mm256_set1_ps(a); }
  static Vector loadu(const float* from) { return _mm256_loadu_ps(from); }
  static void storeu(float* to, Vector a) { _mm256_storeu_ps(to, a); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }

  // Rows k and k + 4 in the halves of a vector: loads do half of the transposing.
  static inline __attribute__((always_inline)) Vector part(const float* const* rows, int64_t d) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows[0] + d)),
                                _mm_loadu_ps(rows[4] + d), 1);
  }
  static inline __attribute__((always_inline)) void columns(const float* const* rows, int64_t d,
                                                            Vector (&out)[4]) {
    const Vector v0 = part(rows, d), v1 = part(rows + 1, d);
    const Vector v2 = part(rows + 2, d), v3 = part(rows + 3, d);
    const Vector low = _mm256_unpacklo_ps(v0, v1), high = _mm256_unpackhi_ps(v0, v1);
    const Vector low2 = _mm256_unpacklo_ps(v2, v3), high2 = _mm256_unpackhi_ps(v2, v3);
    out[0] = _mm256_shuffle_ps(low, low2, 0x44);
    out[1] = _mm256_shuffle_ps(low, low2, 0xee);
    out[2] = _mm256_shuffle_ps(high, high2, 0x44);
    out[3] = _mm256_shuffle_ps(high, high2, 0xee);
  }
};

}  // namespace

void power_screen_chains_avx2(const ScreenPairs& pairs) { screen_chains<Lanes>(pairs); }

}  // namespace otcuda::cpu
