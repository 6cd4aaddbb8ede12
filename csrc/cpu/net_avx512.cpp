// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include <cstdint>

namespace otcuda::cpu {
namespace {

struct Lanes {
  using Vector = __m512;
  static constexpr int n = 16;
  static constexpr int rows =
      12;  // 12 sums hide the latency; a value is read by the multiply-add itself

  static Vector fill(float v) { return _mm512_set1_ps(v); }
  static Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Vector v) { _mm512_storeu_ps(p, v); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector sub(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  // gcc 12 warns of its own _mm512_max_ps.
  static Vector max(Vector a, Vector b) { return _mm512_maskz_max_ps(0xFFFF, a, b); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
};

}  // namespace
}  // namespace otcuda::cpu

#include "cpu/conv3_body.h"
#include "cpu/net_body.h"

namespace otcuda::cpu {
const NetKernels net_kernels_avx512 = {&products, &input, &output};
const Conv3Kernels conv3_kernels_avx512 = {&kernel, &kernel_gradient, &spread, &outer};
}  // namespace otcuda::cpu
