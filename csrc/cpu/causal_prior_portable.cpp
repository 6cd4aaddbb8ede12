// SPDX-License-Identifier: Apache-2.0
#include "cpu/causal_prior_kernels.h"

namespace otcuda::cpu {

void prior_sums_portable(const PriorSums& layer, const uint8_t* x, int32_t* sums) {
  const int8_t* w = layer.weights;
  for (int64_t b = 0; b < layer.blocks; ++b) {
    int32_t* const out = sums + b * kPriorBlock;
    for (int64_t o = 0; o < kPriorBlock; ++o) out[o] = layer.bias[b * kPriorBlock + o];
    for (int64_t q = 0; q < layer.quads; ++q, w += kPriorBlock * kPriorQuad) {
      for (int64_t o = 0; o < kPriorBlock; ++o) {
        for (int64_t j = 0; j < kPriorQuad; ++j) out[o] += w[o * kPriorQuad + j] * x[q * 4 + j];
      }
    }
  }
}

}  // namespace otcuda::cpu
