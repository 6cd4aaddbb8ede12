// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/mask_bits.h"
#include "cpu/power_screen_body.h"

namespace otcuda::cpu {
namespace {

// As power_screen_vnni.cpp with bfloat16 for bytes: half as many products an instruction, and no
// unit that one large coordinate makes coarse for all.
struct Lanes {
  using Vector = __m512i;
  static constexpr int kLanes = 16, kVectors = 4, kTargets = 6;
  static constexpr bool kWide = true, kHalves = true;

  static Vector fill(int32_t a) { return _mm512_set1_epi32(a); }
  static Vector load(const void* from) { return _mm512_load_si512(from); }
  static void store(int32_t* to, Vector a) { _mm512_store_si512(to, a); }
  static Vector dot(Vector sum, Vector x, Vector y) {
#ifdef OTCUDA_BY_HAND
    return _mm512_castps_si512(
        _mm512_dpbf16_ps(_mm512_castsi512_ps(sum), (__m512bh)x, (__m512bh)y));
#else
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y));  // as in power_screen_vnni.cpp
    return sum;
#endif
  }
  // Floats below 2^31 to integers, off by less than one whatever the mode of rounding.
  static Vector whole(Vector sum) {
    return _mm512_maskz_cvtps_epi32(0xFFFF, _mm512_castsi512_ps(sum));
  }
  static Vector add32(Vector a, Vector b) { return _mm512_add_epi32(a, b); }
  static Vector sub32(Vector a, Vector b) { return _mm512_sub_epi32(a, b); }
  static Vector max32(Vector a, Vector b) { return _mm512_maskz_max_epi32(0xFFFF, a, b); }
  static __mmask16 above(Vector a, Vector b) { return _mm512_cmpgt_epi32_mask(a, b); }
  static uint32_t bits(__mmask16 mask) { return mask_bits(mask); }
};

// As in power_screen_vnni.cpp.
struct Narrow : Lanes {
  static constexpr int kVectors = 1, kTargets = 12;
};

}  // namespace

ScreenKernels power_screen_bf16() { return screen_kernels<Lanes>(600, 12, 0.3); }
ScreenKernels power_screen_bf16_narrow() { return screen_kernels<Narrow>(600, 12, 0.3); }

}  // namespace otcuda::cpu
