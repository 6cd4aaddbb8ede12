// SPDX-License-Identifier: Apache-2.0
// conv3: convolution 3 x 3 and its gradients, for training.
//
//   y[b, i, j, o] = bias[o] + sum over u, v in -1 .. 1 and c of x[b, i + u, j + v, c] w[u, v, c, o]
//
// float32; x is [pictures, height, width, inputs], zero outside; height and width are multiples of
// 4, inputs and outputs of 16. Kernels are taps [9, inputs, outputs], u before v. Turned, tap t is
// read as 8 - t: with inputs and outputs exchanged that is the gradient of x.
//
// By Winograd's F(4 x 4, 3 x 3), with the transforms of common/net.h and their adjoints; rounding
// is that of the transforms, some 1e-6 of the norm. The numbers are the same at every level and on
// any number of threads: the gradient of the kernels sums over all tiles in their order.
//
// Source: Lavin & Gray, Fast algorithms for convolutional neural networks, CVPR 2016.
#pragma once

#include <cstdint>

namespace otcuda {

struct Conv3Shape {
  int64_t pictures, height, width, inputs, outputs;
};

}  // namespace otcuda
