// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/causal_prior_kernels.h"

namespace otcuda::cpu {

// Both sides widened to 16 bits: vpmaddubsw would saturate.
void prior_sums_avx2(const PriorSums& layer, const uint8_t* x, int32_t* sums) {
  const int8_t* w = layer.weights;
  for (int64_t b = 0; b < layer.blocks; ++b) {
    __m256i sum[4];  // of four outputs each, two parts of an output side by side
    for (auto& each : sum) each = _mm256_setzero_si256();
    for (int64_t q = 0; q < layer.quads; ++q, w += kPriorBlock * kPriorQuad) {
      int32_t bytes;
      __builtin_memcpy(&bytes, x + q * kPriorQuad, sizeof bytes);
      const __m256i quad = _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(bytes)));
      for (int k = 0; k < 4; ++k) {
        const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16 * k));
        sum[k] = _mm256_add_epi32(sum[k], _mm256_madd_epi16(_mm256_cvtepi8_epi16(four), quad));
      }
    }
    for (int k = 0; k < 4; k += 2) {
      const __m256i mixed = _mm256_hadd_epi32(sum[k], sum[k + 1]);
      const int64_t at = b * kPriorBlock + 4 * k;
      const auto* bias = reinterpret_cast<const __m256i*>(layer.bias + at);
      const __m256i ordered = _mm256_permute4x64_epi64(mixed, 0xd8);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + at),
                          _mm256_add_epi32(ordered, _mm256_loadu_si256(bias)));
    }
  }
}

}  // namespace otcuda::cpu
