// SPDX-License-Identifier: Apache-2.0
// conv3 on the CPU. Contract: csrc/common/conv3.h.
#pragma once

#include "common/conv3.h"

namespace otcuda::cpu {

void conv3(const Conv3Shape& shape, const float* x, const float* taps, bool turned,
           const float* bias, float* y);

// Of x and the gradient of y.
void conv3_kernel_gradient(const Conv3Shape& shape, const float* x, const float* y, float* taps);

}  // namespace otcuda::cpu
