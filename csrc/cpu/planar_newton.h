// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "common/planar_newton.h"
#include "common/poll.h"
#include "common/source_samples.h"

namespace otcuda::cpu {

// Contract: csrc/common/planar_newton.h. Sizes and values are checked by the binding.
struct PlanarProblem {
  const float* y;
  const double* nu;
  int64_t N;
  SourceKind source;
};

// Masses [N] of the cells at heights h [N].
void planar_mass(const float* y, int64_t N, SourceKind source, const double* h, double* mass,
                 Poll* poll);

// Moves h [N].
PlanarResult planar_newton(const PlanarProblem& problem, const PlanarSettings& settings, double* h,
                           Poll* poll);

}  // namespace otcuda::cpu
