// SPDX-License-Identifier: Apache-2.0
// Functions that the host, nvcc and the CUDA emulator compile to the same bits.
//
// Every rounding is written out: fma is one rounding, multiply and add are two, and no compiler may
// fuse them
// (-ffp-contract=off, -fmad=false). No standard header: files of one instruction set may include
// this one.
#pragma once

#include <stdint.h>

#if defined(__CUDACC__)
#define OTCUDA_HD __host__ __device__ inline __attribute__((always_inline))
#define OTCUDA_ON_BOTH __host__ __device__  // inlined where the compiler likes
#else
#define OTCUDA_HD inline __attribute__((always_inline))
#define OTCUDA_ON_BOTH
#endif

namespace otcuda {

OTCUDA_HD float exact_fma(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

OTCUDA_HD double exact_fma(double a, double b, double c) {
#if defined(__CUDA_ARCH__)
  return __fma_rn(a, b, c);
#else
  return __builtin_fma(a, b, c);
#endif
}

OTCUDA_HD float exact_divide(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}

OTCUDA_HD double exact_divide(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __ddiv_rn(a, b);
#else
  return a / b;
#endif
}

// a / b within 2^-20 of itself, otherwise as the hardware likes: for what is corrected afterwards.
OTCUDA_HD float rough_divide(float a, float b) {
#if defined(__CUDA_ARCH__) || defined(OTCUDA_EMULATED)
  return __fdividef(a, b);
#else
  return a / b;
#endif
}

OTCUDA_HD float exact_sqrt(float a) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(a);
#else
  return __builtin_sqrtf(a);
#endif
}

OTCUDA_HD double exact_sqrt(double a) {
#if defined(__CUDA_ARCH__)
  return __dsqrt_rn(a);
#else
  return __builtin_sqrt(a);
#endif
}

// Nearest integer, ties to even; |a| < 2^63.
OTCUDA_HD int64_t round_to_int64(double a) {
#if defined(__CUDA_ARCH__)
  return __double2ll_rn(a);
#else
  return __builtin_llrint(a);
#endif
}

OTCUDA_HD uint32_t float_bits(float a) {
  uint32_t bits;
  __builtin_memcpy(&bits, &a, sizeof bits);
  return bits;
}

OTCUDA_HD float bits_float(uint32_t bits) {
  float a;
  __builtin_memcpy(&a, &bits, sizeof a);
  return a;
}

OTCUDA_HD uint64_t double_bits(double a) {
  uint64_t bits;
  __builtin_memcpy(&bits, &a, sizeof bits);
  return bits;
}

OTCUDA_HD double bits_double(uint64_t bits) {
  double a;
  __builtin_memcpy(&a, &bits, sizeof a);
  return a;
}

}  // namespace otcuda
