// SPDX-License-Identifier: Apache-2.0
// Masks of AVX-512 as numbers. GCC 12 may spill a mask of 16 or 8 lanes as it is and read back 32
// bits; an instruction that is written out it leaves alone. (Where a test does the intrinsics by
// hand, masks are numbers.) Included by files of one instruction set: no standard header but
// <cstdint>.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace otcuda::cpu {
namespace {

inline uint32_t mask_bits(__mmask16 mask) {
#ifdef __AVX512DQ__
  uint32_t bits;
  asm("kmovw %1, %0" : "=r"(bits) : "k"(mask));
  return bits;
#else
  return mask;
#endif
}

inline uint32_t mask_bits(__mmask8 mask) {
#ifdef __AVX512DQ__
  uint32_t bits;
  asm("kmovb %1, %0" : "=r"(bits) : "k"(mask));
  return bits;
#else
  return mask;
#endif
}

}  // namespace
}  // namespace otcuda::cpu
