// SPDX-License-Identifier: Apache-2.0
// source_samples on a CUDA device; contract in common/source_samples.h.
#pragma once

#include <cstdint>

#include "common/source_samples.h"
#include "common/tensor_view.h"
#include "cuda/power_argmax.h"

namespace otcuda::cuda {

// Which numbers: the sequence, and the first sample of it. The stream counts from what `base` holds
// on the device, if given: a captured graph then draws others at each replay.
struct SampleSequence {
  SourceKind source;
  uint64_t seed, stream, offset;
  const int64_t* base = nullptr;
};

// -> out [B, D], float32 or float64.
void source_samples(const SampleSequence& sequence, const TensorView& out, uintptr_t stream);

// The same into memory of float64 rows, and into panels as power_argmax reads them.
void draw_rows(const SampleSequence& sequence, int64_t B, int64_t D, double* out,
               cudaStream_t stream);
void draw_panels(const SampleSequence& sequence, const Panels& out, cudaStream_t stream);

}  // namespace otcuda::cuda
