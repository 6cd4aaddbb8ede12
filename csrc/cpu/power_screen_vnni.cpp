// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/mask_bits.h"
#include "cpu/power_screen_body.h"

namespace otcuda::cpu {
namespace {

// As power_screen_avx512.cpp, but bytes multiply into 32-bit sums at once: no product to hold.
struct Lanes {
  using Vector = __m512i;
  static constexpr int kLanes = 16, kVectors = 4, kTargets = 6;
  static constexpr bool kWide = true, kHalves = false;

  static Vector fill(int32_t a) { return _mm512_set1_epi32(a); }
  static Vector load(const void* from) { return _mm512_load_si512(from); }
  static void store(int32_t* to, Vector a) { _mm512_store_si512(to, a); }
  static Vector dot(Vector sum, Vector x, Vector y) {
#ifdef OTCUDA_BY_HAND
    return _mm512_dpbusd_epi32(sum, x, y);
#else
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y));  // of the intrinsic g++ 12 spills sums
    return sum;
#endif
  }
  static Vector add32(Vector a, Vector b) { return _mm512_add_epi32(a, b); }
  static Vector sub32(Vector a, Vector b) { return _mm512_sub_epi32(a, b); }
  static Vector max32(Vector a, Vector b) { return _mm512_maskz_max_epi32(0xFFFF, a, b); }
  static __mmask16 above(Vector a, Vector b) { return _mm512_cmpgt_epi32_mask(a, b); }
  static uint32_t bits(__mmask16 mask) { return mask_bits(mask); }
};

// Up to 16 samples: one vector of them, and more targets, for as many sums in flight.
struct Narrow : Lanes {
  static constexpr int kVectors = 1, kTargets = 12;
};

}  // namespace

ScreenKernels power_screen_vnni() { return screen_kernels<Lanes>(600, 12, 0.6); }
ScreenKernels power_screen_vnni_narrow() { return screen_kernels<Narrow>(600, 12, 0.6); }

}  // namespace otcuda::cpu
