// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "common/poll.h"
#include "cpu/heights_adam_step.h"
#include "cpu/source_samples.h"

namespace otcuda::cpu {

// Contract: csrc/common/heights_adam_solve.h. Sizes are checked by the binding.
template <class T>
struct HeightsProblem {
  const T* y;
  const T* nu;
  int64_t N, D;
  SourceKind source;
  uint64_t seed;
};

struct AdamSchedule {
  AdamSettings adam;  // its lr is not read
  const double* lr;   // [iterations]
  int64_t iterations, batch;
  bool bias_correction;
};

// Writes *step after each whole step, and chi2 [iterations]. Interrupted and what the callback
// throws leave the state whole.
void heights_adam_solve(const HeightsProblem<float>& problem, const AdamSchedule& schedule,
                        const HeightsState<float>& state, int64_t* step, double* chi2, Poll* poll);
void heights_adam_solve(const HeightsProblem<double>& problem, const AdamSchedule& schedule,
                        const HeightsState<double>& state, int64_t* step, double* chi2, Poll* poll);

}  // namespace otcuda::cpu
