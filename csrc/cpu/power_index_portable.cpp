// SPDX-License-Identifier: Apache-2.0
#include "cpu/power_index_body.h"

namespace otcuda::cpu {

TreeKernels power_index_portable() { return {&tree_argmax<float>, &tree_argmax<double>}; }

}  // namespace otcuda::cpu
