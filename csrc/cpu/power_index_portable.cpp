// SPDX-License-Identifier: Apache-2.0
#include "cpu/power_index_body.h"

namespace otcuda::cpu {
namespace {

struct Lanes {
  template <class T>
  static uint32_t at_least(const T (&a)[kTreeWidth], T b) {
    uint32_t mask = 0;
    for (int k = 0; k < kTreeWidth; ++k) mask |= uint32_t(a[k] >= b) << k;
    return mask;
  }
  template <class T>
  static void scores(const T* x, const T* y, const T* h, int64_t D, T (&score)[kTreeWidth]) {
    for (int k = 0; k < kTreeWidth; ++k) score[k] = T(0);
    for (int64_t d = 0; d < D; ++d) {
      for (int k = 0; k < kTreeWidth; ++k) {
        score[k] = exact_fma(x[d], y[d * kTreeWidth + k], score[k]);
      }
    }
    for (int k = 0; k < kTreeWidth; ++k) score[k] += h[k];
  }
};

}  // namespace

TreeKernels power_index_portable() { return kernels_of_tree<Lanes>(); }

}  // namespace otcuda::cpu
