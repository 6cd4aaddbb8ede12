// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/tensor_view.h"

namespace otcuda::cpu {

// Contract: csrc/common/cell_mass.h. The binding has checked shapes and dtypes.
void cell_mass_counts(const TensorView& index, const TensorView& mass);
void cell_mass_sums(const TensorView& index, const TensorView& weights, const TensorView& mass);

}  // namespace otcuda::cpu
