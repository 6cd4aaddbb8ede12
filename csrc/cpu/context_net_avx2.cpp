// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include <cstdint>

namespace otcuda::cpu {
namespace {

struct Lanes {
  static constexpr int n = 8;
  using Sums = __m256i;
  using Pairs = __m256i;

  static Sums fill(int32_t v) { return _mm256_set1_epi32(v); }
  static Sums load(const int32_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
  static void store(int32_t* p, Sums v) { _mm256_storeu_si256((__m256i*)p, v); }
  static Sums add(Sums a, Sums b) { return _mm256_add_epi32(a, b); }
  static Sums min(Sums a, Sums b) { return _mm256_min_epi32(a, b); }
  static Sums max(Sums a, Sums b) { return _mm256_max_epi32(a, b); }
  static Sums shift_right(Sums a, int32_t by) { return _mm256_sra_epi32(a, _mm_cvtsi32_si128(by)); }
  static Sums shift_right_each(Sums a, Sums by) { return _mm256_srav_epi32(a, by); }
  static void store_narrow(int16_t* p, Sums v) {
    const __m128i low = _mm256_castsi256_si128(v), high = _mm256_extracti128_si256(v, 1);
    _mm_storeu_si128((__m128i*)p, _mm_packs_epi32(low, high));
  }
  static Pairs load_pairs(const int16_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
  static Pairs fill_pair(const void* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return _mm256_set1_epi32(pair);
  }
  static Sums madd(Pairs a, Pairs b) { return _mm256_madd_epi16(a, b); }
};

}  // namespace
}  // namespace otcuda::cpu

#include "cpu/context_net_body.h"

namespace otcuda::cpu {
const ContextKernels context_kernels_avx2 = {&dense, &sparse};
}  // namespace otcuda::cpu
