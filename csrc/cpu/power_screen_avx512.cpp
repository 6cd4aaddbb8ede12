// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/mask_bits.h"
#include "cpu/power_screen_body.h"

namespace otcuda::cpu {
namespace {

// 6 targets x 4 vectors: 24 sums, 4 vectors of samples, one target and one product in 32 registers.
struct Lanes {
  using Vector = __m512i;
  static constexpr int kLanes = 16, kVectors = 4, kTargets = 6;
  static constexpr bool kWide = false, kHalves = false;

  static Vector fill(int32_t a) { return _mm512_set1_epi32(a); }
  static Vector load(const void* from) { return _mm512_load_si512(from); }
  static void store(int32_t* to, Vector a) { _mm512_store_si512(to, a); }
  static Vector dot(Vector sum, Vector x, Vector y) {
    return _mm512_add_epi16(sum, _mm512_maddubs_epi16(x, y));
  }
  static Vector pairs(Vector a) { return _mm512_madd_epi16(a, _mm512_set1_epi16(1)); }
  static Vector add32(Vector a, Vector b) { return _mm512_add_epi32(a, b); }
  static Vector sub32(Vector a, Vector b) { return _mm512_sub_epi32(a, b); }
  static Vector max32(Vector a, Vector b) { return _mm512_maskz_max_epi32(0xFFFF, a, b); }
  static __mmask16 above(Vector a, Vector b) { return _mm512_cmpgt_epi32_mask(a, b); }
  static uint32_t bits(__mmask16 mask) { return mask_bits(mask); }
};

}  // namespace

ScreenKernels power_screen_avx512() { return screen_kernels<Lanes>(600, 12, 0.5); }

}  // namespace otcuda::cpu
