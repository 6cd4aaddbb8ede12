// SPDX-License-Identifier: Apache-2.0
// power_argmax of many problems in one call.
#pragma once

#include "cpu/power_argmax.h"

namespace otcuda::cpu {

// G problems of the same sizes, one behind the other in memory; `first` is the first of them.
void power_argmax_groups(int64_t G, const ArgmaxProblem<float>& first, Poll* poll = nullptr);
void power_argmax_groups(int64_t G, const ArgmaxProblem<double>& first, Poll* poll = nullptr);

}  // namespace otcuda::cpu
