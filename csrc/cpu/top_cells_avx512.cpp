// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/mask_bits.h"
#include "cpu/top_cells_body.h"

namespace otcuda::cpu {
namespace {

// 6 targets x 4 vectors: 24 sums, 4 vectors of samples and one target in 32 registers.
struct Lanes {
  using Vector = __m512;
  static constexpr int kLanes = 16, kVectors = 4, kTargets = 6, kHalfTargets = 8;

  static Vector fill(float a) { return _mm512_set1_ps(a); }
  static Vector load(const float* from) { return _mm512_load_ps(from); }
  static void store(float* to, Vector a) { _mm512_store_ps(to, a); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector max(Vector a, Vector b) { return _mm512_maskz_max_ps(0xFFFF, a, b); }
  static Vector min(Vector a, Vector b) { return _mm512_maskz_min_ps(0xFFFF, a, b); }
  static __mmask16 above(Vector a, Vector b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static uint32_t bits(__mmask16 mask) { return mask_bits(mask); }
};

}  // namespace

TopCellsKernels top_cells_avx512() { return kernels_of<Lanes>(); }

}  // namespace otcuda::cpu
