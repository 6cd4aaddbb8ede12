// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "common/poll.h"

namespace otcuda::cpu {

// Contract: csrc/common/power_argmax.h. Sizes are checked by the binding.
template <class T>
struct ArgmaxProblem {
  const T* x;
  const T* y;
  const T* h;
  int64_t B, N, D;
  T* value;
  int64_t* index;
};

void power_argmax(const ArgmaxProblem<float>& problem, Poll* poll = nullptr);
void power_argmax(const ArgmaxProblem<double>& problem, Poll* poll = nullptr);

}  // namespace otcuda::cpu
