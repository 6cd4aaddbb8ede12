// SPDX-License-Identifier: Apache-2.0
// What the levels of net implement: rows of products, and the two transforms of conv3.
//
// Included by the files of the levels, so: no std header but <cstdint>, no inline function that is
// not static.
#pragma once

#include <cstdint>

namespace otcuda::cpu {

constexpr int kNetBlock = 16;  // channels are padded to so many, with zeros

// Products of n rows with one block of outputs:
//   out[r][o] = sum over taps t and inputs c of x[r][taps[t] + c] weights[t][c][o], + bias[o]
struct NetRows {
  const float* x;
  int64_t x_stride;
  float* out;
  int64_t out_stride, n;
};
struct NetProducts {
  const float* weights;  // [taps][inputs][16]
  const float* bias;     // [16], or null: none is added
  const int64_t* taps;
  int64_t n_taps, inputs;
};

// A window or tile of `channels` channels, a multiple of 16: where it lies in its planes, and its
// 36 points, each `point` floats after the other.
struct NetWindow {
  int64_t row, pixel;  // floats from a row of the planes to the next, from a pixel to the next
  int64_t channels, point;
};

// What follows the transform: + bias; leaky; skip + it; leaky.
struct NetFinish {
  const float* bias;
  bool leaky_inside, leaky_after;
};

struct NetKernels {
  void (*products)(const NetProducts& layer, const NetRows& rows);
  void (*input)(const NetWindow& at, const float* window, float* points);
  // skip: null, or what is added, laid out as the tile; it may be the tile itself.
  void (*output)(const NetWindow& at, const NetFinish& finish, const float* points,
                 const float* skip, float* tile);
};

extern const NetKernels net_kernels_portable;
extern const NetKernels net_kernels_avx2;
extern const NetKernels net_kernels_avx512;

}  // namespace otcuda::cpu
