// SPDX-License-Identifier: Apache-2.0
// source_samples, once for all instruction sets: plain loops that the compiler turns into vectors.
#pragma once

#include "cpu/source_samples_kernel.h"

namespace otcuda::cpu {
namespace {

inline __attribute__((always_inline)) void numbers(SourceKind source, const uint32_t* bits,
                                                   float* out) {
  if (source == SourceKind::normal) {
    for (int k = 0; k < kSampleChunk; ++k) out[k] = normal_from_bits(bits[k]);
  } else if (source == SourceKind::uniform) {
    for (int k = 0; k < kSampleChunk; ++k) out[k] = uniform_from_bits(bits[k]);
  } else {
    for (int k = 0; k < kSampleChunk; ++k) out[k] = gaussian_cdf_from_bits(bits[k]);
  }
}

inline __attribute__((always_inline)) void draw(SourceKind source, uint64_t seed, uint64_t stream,
                                                uint64_t first, float* out) {
  alignas(64) uint32_t bits[kSampleChunk];
  for (int k = 0; k < kSampleBlocks; ++k) {
    const PhiloxBlock block = philox(seed, stream, first + uint64_t(k));
    for (int w = 0; w < 4; ++w) bits[4 * k + w] = block.word[w];
  }
  numbers(source, bits, out);
}

}  // namespace
}  // namespace otcuda::cpu
