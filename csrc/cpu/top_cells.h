// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "common/poll.h"

namespace otcuda::cpu {

// Contract: csrc/common/top_cells.h. Sizes are checked by the binding.
struct TopCells {
  const float* x;
  const float* y;
  const float* h;
  int64_t B, N, D;  // B counts groups where samples are products
  int64_t L;        // coordinates of a left half; plain samples have none
  int K;
  int32_t* index;
  float* inner;
  float* cut;
};

void top_cells(const TopCells& problem, Poll* poll = nullptr);
void top_cells_product(const TopCells& problem, Poll* poll = nullptr);

}  // namespace otcuda::cpu
