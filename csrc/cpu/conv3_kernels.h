// SPDX-License-Identifier: Apache-2.0
// What the levels of conv3 implement beside the kernels of net: transforms of kernels, and what the
// gradient of the kernels needs.
//
// Included by the files of the levels, so: no std header but <cstdint>, no inline function that is
// not static.
#pragma once

#include <cstdint>

#include "cpu/net_kernels.h"

namespace otcuda::cpu {

// Kernels of `inputs` inputs and one block of 16 outputs. Taps [9][inputs][outputs] lie `tap` and
// `row` floats apart (a negative `tap` turns the kernel round); points [36][inputs][16] lie `point`
// and 16 apart.
struct Conv3Taps {
  int64_t inputs, tap, row, point;
};

// out[c][o] = sum over n rows of x[c] m[o]: c < channels, o < 16.
struct Conv3Outer {
  const float* x;
  int64_t x_stride;
  const float* m;
  int64_t m_stride;
  int64_t channels, n;
};

struct Conv3Kernels {
  void (*kernel)(const Conv3Taps& at, const float* taps, float* points);
  void (*kernel_gradient)(const Conv3Taps& at, const float* points, float* taps);
  // The adjoint of net's `output`: 4 x 4 pixels to 36 points.
  void (*spread)(const NetWindow& at, const float* tile, float* points);
  void (*outer)(const Conv3Outer& product, float* out);
};

extern const Conv3Kernels conv3_kernels_portable;
extern const Conv3Kernels conv3_kernels_avx2;
extern const Conv3Kernels conv3_kernels_avx512;

}  // namespace otcuda::cpu
