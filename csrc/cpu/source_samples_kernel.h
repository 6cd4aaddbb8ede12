// SPDX-License-Identifier: Apache-2.0
// What the levels of source_samples offer. No standard header: ISA files include this.
#pragma once

#include "common/source_samples.h"

namespace otcuda::cpu {

constexpr int kSampleBlocks = 64;                // Philox blocks drawn at a time
constexpr int kSampleChunk = 4 * kSampleBlocks;  // numbers

// out[k] = number 4 * first + k of the sequence, k < kSampleChunk.
using SampleKernel = void (*)(SourceKind source, uint64_t seed, uint64_t stream, uint64_t first,
                              float* out);

// out[k] = the transform of the source, of bits[k], k < kSampleChunk; both aligned to 64 bytes.
using NumberKernel = void (*)(SourceKind source, const uint32_t* bits, float* out);

void source_numbers_portable(SourceKind, const uint32_t*, float*);
void source_numbers_avx2(SourceKind, const uint32_t*, float*);
void source_numbers_avx512(SourceKind, const uint32_t*, float*);

void source_samples_portable(SourceKind, uint64_t, uint64_t, uint64_t, float*);
void source_samples_avx2(SourceKind, uint64_t, uint64_t, uint64_t, float*);
void source_samples_avx512(SourceKind, uint64_t, uint64_t, uint64_t, float*);

}  // namespace otcuda::cpu
