// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdint.h>

namespace otcuda::cpu {

// Runs float32 multiply-adds and returns how many floating point operations they were.
double fma_spin_portable(int64_t rounds);
double fma_spin_avx2(int64_t rounds);
double fma_spin_avx512(int64_t rounds);

}  // namespace otcuda::cpu
