// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "common/poll.h"
#include "common/source_samples.h"

namespace otcuda::cpu {

// Contract: csrc/common/heights_asgd_solve.h. Sizes are checked by the binding.
struct AsgdProblem {
  const float* y;
  const double* nu;
  int64_t N, D;
  SourceKind source;
  uint64_t seed;
  bool product;
};

struct AsgdSchedule {
  const double* rate;   // [iterations]
  const double* share;  // [iterations]
  int64_t iterations, batch;
  double limit;
};

struct AsgdState {
  double* h;
  double* mean;
  int64_t* step;
};

void heights_asgd_solve(const AsgdProblem& problem, const AsgdSchedule& schedule,
                        const AsgdState& state, Poll* poll);

}  // namespace otcuda::cpu
