// SPDX-License-Identifier: Apache-2.0
// GCC 12 warns of what its own intrinsics leave undefined on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <cstdint>

namespace otcuda::cpu {
namespace {

struct Lanes {
  static constexpr int n = 16;
  using Sums = __m512i;
  using Pairs = __m512i;

  static Sums fill(int32_t v) { return _mm512_set1_epi32(v); }
  static Sums load(const int32_t* p) { return _mm512_loadu_si512(p); }
  static void store(int32_t* p, Sums v) { _mm512_storeu_si512(p, v); }
  static Sums add(Sums a, Sums b) { return _mm512_add_epi32(a, b); }
  static Sums min(Sums a, Sums b) { return _mm512_min_epi32(a, b); }
  static Sums max(Sums a, Sums b) { return _mm512_max_epi32(a, b); }
  static Sums shift_right(Sums a, int32_t by) { return _mm512_sra_epi32(a, _mm_cvtsi32_si128(by)); }
  static Sums shift_right_each(Sums a, Sums by) { return _mm512_srav_epi32(a, by); }
  static void store_narrow(int16_t* p, Sums v) {
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(v));
  }
  static Pairs load_pairs(const int16_t* p) { return _mm512_loadu_si512(p); }
  static Pairs fill_pair(const void* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return _mm512_set1_epi32(pair);
  }
  static Sums madd(Pairs a, Pairs b) { return _mm512_madd_epi16(a, b); }
};

}  // namespace
}  // namespace otcuda::cpu

#include "cpu/context_net_body.h"

namespace otcuda::cpu {
const ContextKernels context_kernels_avx512 = {&dense, &sparse};
}  // namespace otcuda::cpu
