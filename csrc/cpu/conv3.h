// SPDX-License-Identifier: Apache-2.0
// Convolution 3 x 3 and its gradients for training, by Winograd's F(4 x 4, 3 x 3): the transforms
// of csrc/common/net.h, which is also where the layer is defined.
//
// Activations are [pictures, height, width, channels], zero outside; height and width are multiples
// of 4, channels of 16. Kernels are taps [9, inputs, outputs]. Same numbers on any number of
// threads.
#pragma once

#include <cstdint>

namespace otcuda::cpu {

struct Conv3Shape {
  int64_t pictures, height, width, inputs, outputs;
};

// y[.., o] = sum over taps and inputs + bias[o]. With `turned` the taps are those
// of the layer whose gradient is taken: read from the last to the first.
void conv3(const Conv3Shape& shape, const float* x, const float* taps, bool turned,
           const float* bias, float* y);

// taps = sum over pictures and pixels of x times y, at each of the nine displacements.
void conv3_kernel_gradient(const Conv3Shape& shape, const float* x, const float* y, float* taps);

}  // namespace otcuda::cpu
