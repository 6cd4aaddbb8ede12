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

constexpr int kPanelUnit = 96;  // targets that panels are multiples of, where they can be

// A block of packed samples against a panel of targets.
template <class T>
struct ArgmaxPanel {
  using Index = typename ArgmaxIndex<T>::Type;

  const T* x;  // [D][samples], samples of the level's block side by side
  const T* y;  // [targets][D], D >= 1
  const T* h;  // [targets]
  int64_t targets;
  int64_t D;
  int64_t first;  // place of the first target in its run
  T* best;        // [samples], 64-byte aligned; -inf before the first panel
  Index* place;   // [samples], aligned too; -1 before the first panel: where the winner's group is
};

// From the groups of some samples to their winners.
template <class T>
struct ArgmaxSettle {
  const T* x;  // [samples][D]
  const T* y;  // [targets][D], the whole run
  const T* h;  // [targets]
  int64_t samples, targets, D;
  const T* best;                               // [samples], of the run
  const typename ArgmaxIndex<T>::Type* place;  // [samples]; where it is -1, nothing is written
  T* value;                                    // [samples]
  int64_t* index;                              // [samples], counted from the first of the run
};

constexpr int kFewSamples = 8;  // of a call of `few`
constexpr int kFewLanes = 16;   // bests of a sample, of which a level may use fewer

// A handful of samples against a panel of targets, in lanes of targets.
template <class T>
struct ArgmaxFew {
  using Index = typename ArgmaxIndex<T>::Type;

  const T* x;  // [kFewSamples][D]
  const T* y;  // [targets][D], D >= 1
  const T* h;  // [targets]
  int64_t samples, targets, D;
  int64_t readable;  // numbers from y on
  int64_t first;     // place of the first target in its run
  T* spare;          // [kFewLanes (D + 1)]
  T* best;           // [kFewSamples][kFewLanes], aligned; -inf before the first panel
  Index* place;      // alike, aligned; -1 before: the winner of lane k is k places further
};

// Blocks of samples against panels of targets.
template <class T>
struct ArgmaxBlocks {
  int samples;  // of a block
  void (*panel)(const ArgmaxPanel<T>&);
  void (*settle)(const ArgmaxSettle<T>&);
};

template <class T>
struct ArgmaxKernel {
  ArgmaxBlocks<T> blocks;
  // The first of some targets whose score with a sample is a number, or -1.
  int64_t (*first_number)(const T* x, const T* y, const T* h, int64_t targets, int64_t D);
  // For samples left over after whole blocks.
  void (*few)(const ArgmaxFew<T>&) = nullptr;  // none: by blocks
  int few_lanes = 0;
  ArgmaxBlocks<T> narrow = {};  // fewer samples
};

struct ArgmaxKernels {
  ArgmaxKernel<float> f32;
  ArgmaxKernel<double> f64;
};

ArgmaxKernels power_argmax_portable();
ArgmaxKernels power_argmax_avx2();
ArgmaxKernels power_argmax_avx512();

}  // namespace otcuda::cpu
