// SPDX-License-Identifier: Apache-2.0
#include "cpu/symbol_runs_body.h"

namespace otcuda::cpu {

extern const SymbolKernels symbol_kernels_avx512 = kSymbolKernels;

}  // namespace otcuda::cpu
