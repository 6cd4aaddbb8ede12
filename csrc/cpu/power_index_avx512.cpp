// SPDX-License-Identifier: Apache-2.0
#include "cpu/power_index_body.h"

namespace otcuda::cpu {

TreeKernels power_index_avx512() { return kernels_of_tree(); }

}  // namespace otcuda::cpu
