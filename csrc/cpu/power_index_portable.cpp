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
};

}  // namespace

TreeKernels power_index_portable() { return kernels_of_tree<Lanes>(); }

}  // namespace otcuda::cpu
