// SPDX-License-Identifier: Apache-2.0
// What the levels of power_topk offer to power_topk.cpp. No standard header: ISA files include
// this.
#pragma once

#include <stdint.h>

#include "common/power_topk.h"

namespace otcuda::cpu {

// Indices as wide as T, so that one mask serves both; counted from the first target of a run, which
// therefore holds at most 2^30 of them.
template <class T>
struct TopkIndex {
  using Type = int32_t;
};
template <>
struct TopkIndex<double> {
  using Type = int64_t;
};

// The best targets of one sample so far, best first; score -inf where there is none. Entering one
// reads a place before the first.
template <class T>
struct alignas(64) TopkList {
  static constexpr int kStep = 64 / int(sizeof(T));  // places that are moved at a time
  static constexpr int kBefore = kStep;
  T score[kBefore + kMostTopk];  // +inf before the first
  typename TopkIndex<T>::Type index[kBefore + kMostTopk];
};

// A block of packed samples against a panel of targets.
template <class T>
struct TopkPanel {
  const T* x;  // [D][samples], samples of the level's block side by side
  const T* y;  // [targets][D]
  const T* h;  // [targets]
  int64_t targets, D;
  int64_t first;  // place of the first target in its run
  T* threshold;   // [samples], 64-byte aligned: a newcomer must exceed it, and k targets do or will
  TopkList<T>* lists;  // [samples]
  int k;
};

template <class T>
struct TopkKernel {
  int samples;  // of a block
  int targets;  // of a tile
  void (*panel)(const TopkPanel<T>&);
  // What `tiles` tiles prove of the k-th best: topk_warm in power_topk_body.h.
  void (*warm)(const TopkPanel<T>&, int64_t tiles, T* most);
  // Targets whose score with a sample is -inf, lowest first; how many of `room` were found.
  int64_t (*dead)(const T* x, const T* y, const T* h, int64_t targets, int64_t D, int64_t first,
                  int64_t* index, int64_t room);
};

struct TopkKernels {
  TopkKernel<float> f32;
  TopkKernel<double> f64;
};

TopkKernels power_topk_portable();
TopkKernels power_topk_avx2();
TopkKernels power_topk_avx512();

}  // namespace otcuda::cpu
