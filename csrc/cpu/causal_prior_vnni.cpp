// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/causal_prior_kernels.h"

namespace otcuda::cpu {

void prior_sums_vnni(const PriorSums& layer, const uint8_t* x, int32_t* sums) {
  const int8_t* w = layer.weights;
  for (int64_t b = 0; b < layer.blocks; ++b) {
    __m512i sum = _mm512_loadu_si512(layer.bias + b * kPriorBlock);
    for (int64_t q = 0; q < layer.quads; ++q, w += kPriorBlock * kPriorQuad) {
      int32_t quad;
      __builtin_memcpy(&quad, x + q * kPriorQuad, sizeof quad);
      // Not the saturating form: exact below 2^31.
      sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi32(quad), _mm512_loadu_si512(w));
    }
    _mm512_storeu_si512(sums + b * kPriorBlock, sum);
  }
}

}  // namespace otcuda::cpu
