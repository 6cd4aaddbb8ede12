// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "common/poll.h"

namespace otcuda::cpu {

// Contract: csrc/common/power_topk.h. Sizes are checked by the binding.
template <class T>
struct TopkProblem {
  const T* x;
  const T* y;
  const T* h;
  int64_t G, B, N, D;
  int k;
  T* value;
  int64_t* index;
};

void power_topk(const TopkProblem<float>& problem, Poll* poll = nullptr);
void power_topk(const TopkProblem<double>& problem, Poll* poll = nullptr);

}  // namespace otcuda::cpu
