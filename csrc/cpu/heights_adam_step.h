// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "common/heights_adam_step.h"

namespace otcuda::cpu {

template <class T>
struct HeightsState {
  T* h;
  T* m;
  T* v;
};

// Contract: csrc/common/heights_adam_step.h. Sizes are checked by the binding.
void heights_adam_step(const HeightsState<float>& state, const float* mass, const float* nu,
                       int64_t N, const AdamSettings& adam, int64_t step);
void heights_adam_step(const HeightsState<double>& state, const double* mass, const double* nu,
                       int64_t N, const AdamSettings& adam, int64_t step);

}  // namespace otcuda::cpu
