// SPDX-License-Identifier: Apache-2.0
// What the levels of top_cells offer to top_cells.cpp. No standard header: ISA files include this.
#pragma once

#include <stdint.h>

#include "common/top_cells.h"

namespace otcuda::cpu {

// The best cells of one sample so far, best first; score -inf where there is none. Entering a
// target is a few compares and blends without a branch, which read one place before the first.
struct alignas(64) Shortlist {
  static constexpr int kBefore = 8;
  static constexpr int kRoom = 24;  // of at least K + 1
  float score[kBefore + kRoom];     // +inf before the first
  float inner[kBefore + kRoom];
  int32_t index[kBefore + kRoom];
};

constexpr int64_t kFirstTargets = 1024;  // that give lists their first thresholds

struct TopCellsPanel {
  const float* x;  // [D][samples] packed; product: [D][kHalves], left rows above right ones
  const float* y;  // [targets][D]
  const float* h;  // [targets]
  int64_t targets, D, L;
  int64_t first;     // index of the first target
  float* threshold;  // [samples], 64-byte aligned: scores at or below it are in no list
  Shortlist* lists;  // [samples]
  int K;
  float* first_products;  // room for kFirstTargets inner products of each sample of a plain block
};

struct TopCellsKernels {
  int samples;  // of a block of plain samples
  void (*plain)(const TopCellsPanel&);
  void (*product)(const TopCellsPanel&);
};

TopCellsKernels top_cells_portable();
TopCellsKernels top_cells_avx2();
TopCellsKernels top_cells_avx512();

}  // namespace otcuda::cpu
