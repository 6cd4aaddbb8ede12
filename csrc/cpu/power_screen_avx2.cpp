// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/power_screen_body.h"

namespace otcuda::cpu {
namespace {

// 6 targets x 2 vectors: 12 sums, 2 vectors of samples, one target and one product in 16 registers.
struct Lanes {
  using Vector = __m256i;
  static constexpr int kLanes = 8, kVectors = 2, kTargets = 6;
  static constexpr bool kWide = false, kHalves = false;

  static Vector fill(int32_t a) { return _mm256_set1_epi32(a); }
  static Vector load(const void* from) {
    return _mm256_load_si256(static_cast<const Vector*>(from));
  }
  static void store(int32_t* to, Vector a) { _mm256_store_si256(reinterpret_cast<Vector*>(to), a); }
  static Vector dot(Vector sum, Vector x, Vector y) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(x, y));
  }
  static Vector pairs(Vector a) { return _mm256_madd_epi16(a, _mm256_set1_epi16(1)); }
  static Vector add32(Vector a, Vector b) { return _mm256_add_epi32(a, b); }
  static Vector sub32(Vector a, Vector b) { return _mm256_sub_epi32(a, b); }
  static Vector max32(Vector a, Vector b) { return _mm256_max_epi32(a, b); }
  static uint32_t bits(uint32_t mask) { return mask; }
  static uint32_t above(Vector a, Vector b) {
    return uint32_t(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(a, b))));
  }
};

}  // namespace

ScreenKernels power_screen_avx2() { return screen_kernels<Lanes>(400, 7, 0.5); }

}  // namespace otcuda::cpu
