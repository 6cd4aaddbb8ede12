// SPDX-License-Identifier: Apache-2.0
// heights_adam_step on a CUDA device; contract in common/heights_adam_step.h.
#pragma once

#include <cstdint>

#include "common/heights_adam_step.h"
#include "common/tensor_view.h"

namespace otcuda::cuda {

// h, m, v [N] in place from mass, nu [N]; float32 or float64, all the same.
void heights_adam_step(const TensorView& h, const TensorView& m, const TensorView& v,
                       const TensorView& mass, const TensorView& nu, const AdamSettings& adam,
                       int64_t step, uintptr_t stream);

}  // namespace otcuda::cuda
