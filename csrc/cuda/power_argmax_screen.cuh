// SPDX-License-Identifier: Apache-2.0
// What the two screens share: the packed order of samples and targets, and the problem. One screen
// is the kernel of power_argmax_screen.cu by mma.sync, the other that of power_argmax_wgmma.cu.
#pragma once

#include <cstdint>

#include "common/power_argmax_screen.h"
#include "cuda/shim.cuh"

namespace otcuda::cuda {

constexpr int kGroup = 64;  // targets that share one maximum
constexpr int kRows = 128;  // samples of a block of the screen by mma.sync; chunks are cut by them

// Where 16 bytes of a row lie among 64 rows of W numbers: eight rows at the same chunk, which are
// read at once, lie in eight groups of banks. For wgmma these are its swizzles of 64 and 128 bytes;
// rows of 128 numbers are two blocks of 64.
template <int W>
__device__ __forceinline__ int chunk_place(int row, int chunk) {
  constexpr int kChunks = W < 64 ? W / 8 : 8;
  const int turn = row / (8 / kChunks) % kChunks;
  return (chunk / kChunks * 64 * kChunks + row * kChunks + (chunk % kChunks ^ turn)) * 8;
}

struct ScreenProblem {
  const uint16_t* x;  // [stride, W]
  const uint16_t* y;
  const float* heights;  // [targets / 2, 4], as registers of a sum: h0 h1 h0 h1 for two targets
  const ScreenNorms* x_norms;
  const ScreenNorms* groups;
  float* maxima;  // [group_count, stride]
  int rows, stride, group_count, D;
};

// Calls f with the width of packed rows, f(Width<32>{}) and so on.
template <int W>
struct Width {
  static constexpr int value = W;
};
template <class Function>
void with_width(int64_t D, const Function& f) {
  if (D <= 32) return f(Width<32>{});
  if (D <= 64) return f(Width<64>{});
  f(Width<128>{});
}

// Maxima of all groups by the kernel of power_argmax_wgmma.cu.
void launch_wgmma_screen(const ScreenProblem& p, cudaStream_t stream);

}  // namespace otcuda::cuda
