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

// out[k] = the transform of the source, of bits[k], k < count; on the calling thread.
void source_numbers(SourceKind source, const uint32_t* bits, int64_t count, float* out);

}  // namespace otcuda::cpu
