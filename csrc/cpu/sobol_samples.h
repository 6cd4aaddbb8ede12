// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "common/sobol_samples.h"
#include "cpu/source_samples.h"

namespace otcuda::cpu {

// out [B, D] = points first .. first + B of the scramble (seed, stream) of `sequence`.
// Contract: csrc/common/sobol_samples.h. Sizes are checked by the binding.
void sobol_samples(const SampleSequence& sequence, uint64_t first, int64_t B, int64_t D,
                   float* out);

}  // namespace otcuda::cpu
