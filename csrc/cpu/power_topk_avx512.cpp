// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "cpu/mask_bits.h"
#include "cpu/power_topk_body.h"

namespace otcuda::cpu {
namespace {

// 6 targets x 4 vectors: 24 sums, 4 vectors of samples and one target in 32 registers.
struct Lanes32 {
  using Value = float;
  using Vector = __m512;
  static constexpr int kLanes = 16, kVectors = 4, kTargets = 6;

  static Vector fill(float a) { return _mm512_set1_ps(a); }
  static Vector load(const float* from) { return _mm512_load_ps(from); }
  static void store(float* to, Vector a) { _mm512_store_ps(to, a); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector max(Vector a, Vector b) { return _mm512_maskz_max_ps(0xFFFF, a, b); }
  static Vector min(Vector a, Vector b) { return _mm512_maskz_min_ps(0xFFFF, a, b); }
  static void keep_place(Vector highest, Vector best, int64_t here, int32_t* to) {
    const __mmask16 beats = _mm512_cmp_ps_mask(highest, best, _CMP_GT_OQ);
    const __m512i place = _mm512_set1_epi32(static_cast<int32_t>(here));
    _mm512_store_si512(to, _mm512_mask_mov_epi32(_mm512_load_si512(to), beats, place));
  }
  static __mmask16 above(Vector a, Vector b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static uint32_t bits(__mmask16 mask) { return mask_bits(mask); }
};

struct Lanes64 {
  using Value = double;
  using Vector = __m512d;
  static constexpr int kLanes = 8, kVectors = 4, kTargets = 6;

  static Vector fill(double a) { return _mm512_set1_pd(a); }
  static Vector load(const double* from) { return _mm512_load_pd(from); }
  static void store(double* to, Vector a) { _mm512_store_pd(to, a); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_pd(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm512_add_pd(a, b); }
  static Vector max(Vector a, Vector b) { return _mm512_maskz_max_pd(0xFF, a, b); }
  static Vector min(Vector a, Vector b) { return _mm512_maskz_min_pd(0xFF, a, b); }
  static void keep_place(Vector highest, Vector best, int64_t here, int64_t* to) {
    const __mmask8 beats = _mm512_cmp_pd_mask(highest, best, _CMP_GT_OQ);
    const __m512i place = _mm512_set1_epi64(static_cast<int64_t>(here));
    _mm512_store_si512(to, _mm512_mask_mov_epi64(_mm512_load_si512(to), beats, place));
  }
  static __mmask8 above(Vector a, Vector b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ); }
  static uint32_t bits(__mmask8 mask) { return mask_bits(mask); }
};

}  // namespace

TopkKernels power_topk_avx512() { return {topk_kernel<Lanes32>(), topk_kernel<Lanes64>()}; }

}  // namespace otcuda::cpu
