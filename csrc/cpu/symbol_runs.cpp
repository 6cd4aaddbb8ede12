// SPDX-License-Identifier: Apache-2.0
#include "cpu/symbol_runs.h"

#include "common/simd.h"

namespace otcuda::cpu {

const SymbolKernels& symbol_kernels() {
#if OTCUDA_X86_LEVELS
  if (simd_level() == SimdLevel::avx512) return symbol_kernels_avx512;
  if (simd_level() == SimdLevel::avx2) return symbol_kernels_avx2;
#endif
  return symbol_kernels_portable;
}

}  // namespace otcuda::cpu
