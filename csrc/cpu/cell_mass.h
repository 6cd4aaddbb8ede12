// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/tensor_view.h"

namespace otcuda::cpu {

// Contract: csrc/common/cell_mass.h. The binding has checked shapes and dtypes.
void cell_mass_counts(const int64_t* index, int64_t B, int64_t N, int64_t* mass);
void cell_mass_sums(const TensorView& index, const TensorView& weights, const TensorView& mass);

}  // namespace otcuda::cpu
