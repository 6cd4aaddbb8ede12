// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "common/list_newton.h"
#include "common/poll.h"

namespace otcuda::cpu {

// Contract: csrc/common/list_newton.h. Sizes are checked by the binding, indices by list_check.
struct CellLists {
  const int32_t* index;
  const float* inner;
  const float* reach;
  int64_t M, K, N;
};

// Whether every index is in [0, N).
bool list_check(const CellLists& lists);

// Counts of the winners [N], and where gap is not null the local gaps [N]; returns the mean of the
// best values. `mean_gap` may be null.
double list_measure(const CellLists& lists, const double* h, int64_t* counts, double* gap,
                    double* mean_gap, Poll* poll);

NewtonResult list_newton(const CellLists& lists, const double* nu, const double* gap,
                         const NewtonSettings& settings, double* h, Poll* poll);

}  // namespace otcuda::cpu
