// SPDX-License-Identifier: Apache-2.0
// What the levels of power_argmax offer to power_argmax.cpp. No standard header: ISA files include
// this.
#pragma once

#include <stdint.h>

namespace otcuda::cpu {

// Indices as wide as the lanes of T, so that one mask serves both; counted from the first target of
// a run, which therefore holds at most 2^30 of them.
template <class T>
struct ArgmaxIndex {
  using Type = int32_t;
};
template <>
struct ArgmaxIndex<double> {
  using Type = int64_t;
};

// A block of packed samples against a panel of targets.
template <class T>
struct ArgmaxPanel {
  using Index = typename ArgmaxIndex<T>::Type;

  const T* x;  // [D][samples], samples of the level's block side by side
  const T* y;  // [targets][D]
  const T* h;  // [targets]
  int64_t targets;
  int64_t D;
  int64_t first;  // place of the first target in its run
  T* best;        // [samples], 64-byte aligned; NaN before the first panel
  Index* index;   // [samples], aligned too; -1 before the first panel
};

template <class T>
struct ArgmaxKernel {
  int samples;  // of a block
  int targets;  // of a register tile; panels are multiples of it where they can be
  void (*panel)(const ArgmaxPanel<T>&);
};

struct ArgmaxKernels {
  ArgmaxKernel<float> f32;
  ArgmaxKernel<double> f64;
};

ArgmaxKernels power_argmax_portable();
ArgmaxKernels power_argmax_avx2();
ArgmaxKernels power_argmax_avx512();

}  // namespace otcuda::cpu
