// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "common/source_samples.h"

namespace otcuda::cpu {

struct SampleSequence {
  SourceKind source;
  uint64_t seed, stream;
};

// out[k] = number first + k of the sequence, k < count. Contract: csrc/common/source_samples.h.
void source_samples(const SampleSequence& sequence, uint64_t first, int64_t count, float* out);
void source_samples(const SampleSequence& sequence, uint64_t first, int64_t count, double* out);

}  // namespace otcuda::cpu
