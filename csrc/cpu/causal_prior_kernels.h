// SPDX-License-Identifier: Apache-2.0
// What the levels of causal_prior implement: the sums of a layer. No standard header but <cstdint>:
// files of one instruction set include this one.
#pragma once

#include <cstdint>

namespace otcuda::cpu {

constexpr int64_t kPriorBlock = 16;  // outputs of a block
constexpr int64_t kPriorQuad = 4;    // inputs that are multiplied and added at once

// Weights [blocks][quads][16 outputs][4 inputs]; padding is zero.
struct PriorSums {
  const int8_t* weights;
  const int32_t* bias;  // [blocks * 16]
  int64_t blocks, quads;
};

using PriorKernel = void (*)(const PriorSums& layer, const uint8_t* x, int32_t* sums);

void prior_sums_portable(const PriorSums& layer, const uint8_t* x, int32_t* sums);
void prior_sums_avx2(const PriorSums& layer, const uint8_t* x, int32_t* sums);
void prior_sums_vnni(const PriorSums& layer, const uint8_t* x, int32_t* sums);

}  // namespace otcuda::cpu
