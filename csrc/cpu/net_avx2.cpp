// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include <cstdint>

namespace otcuda::cpu {
namespace {

struct Lanes {
  using Vector = __m256;
  static constexpr int n = 8;
  static constexpr int rows = 6;  // 12 sums, 2 weights and a value: 15 of 16 registers

  static Vector fill(float v) { return _mm256_set1_ps(v); }
  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Vector v) { _mm256_storeu_ps(p, v); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector sub(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
  static Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
};

}  // namespace
}  // namespace otcuda::cpu

#include "cpu/conv3_body.h"
#include "cpu/net_body.h"

namespace otcuda::cpu {
const NetKernels net_kernels_avx2 = {&products, &input, &output};
const Conv3Kernels conv3_kernels_avx2 = {&kernel, &kernel_gradient, &spread, &outer};
}  // namespace otcuda::cpu
