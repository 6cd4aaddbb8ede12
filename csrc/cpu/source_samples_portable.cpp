// SPDX-License-Identifier: Apache-2.0
#include "cpu/source_samples_body.h"

namespace otcuda::cpu {

void source_samples_portable(SourceKind source, uint64_t seed, uint64_t stream, uint64_t first,
                             float* out) {
  draw(source, seed, stream, first, out);
}

void source_numbers_portable(SourceKind source, const uint32_t* bits, float* out) {
  numbers(source, bits, out);
}

}  // namespace otcuda::cpu
