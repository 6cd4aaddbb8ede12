// SPDX-License-Identifier: Apache-2.0
// What the kernels of power_argmax share: the chain of the contract over panels, keys, publishing.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "cuda/power_argmax.h"
#include "cuda/shim.cuh"

namespace otcuda::cuda {

using Key = PanelKey;

constexpr int kTile = kPanelRows;  // a block compares 128 samples with 128 targets at a time

// Orders by score, then by lower place (a target, or a group of them); 0 is below every key, so it
// says that no score was above -inf.
__device__ __forceinline__ Key key_of(float score, int place) {
  const unsigned bits = __float_as_uint(score + 0.0f);  // -0 and +0 are equal scores
  const unsigned ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return Key(ordered) << 32 | ~unsigned(place);
}

template <class T>
__device__ __forceinline__ void publish(const Winners<T>& to, int64_t row, T value, int64_t index) {
  if (to.places) row = to.places[row];
  if (to.value) to.value[row] = value;
  if (to.index) to.index[row] = index;
  if (to.counts && index >= 0) atomicAdd(&to.counts[index], PanelKey(1));
}

// Numbers of x lie x_step apart, those of y as in a panel.
template <int x_step>
__device__ __forceinline__ float score(const float* __restrict__ x_row,
                                       const float* __restrict__ y_panel, float height, int D) {
  float s = 0.0f;
#pragma unroll 8
  for (int d = 0; d < D; ++d) {
    s = exact_fma(*x_row, *y_panel, s);
    x_row += x_step;  // pointers that run: 64-bit products would cost registers
    y_panel += kTile;
  }
  return __fadd_rn(s, height);
}

}  // namespace otcuda::cuda
