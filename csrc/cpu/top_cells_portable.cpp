// SPDX-License-Identifier: Apache-2.0
#include "cpu/list_lanes.h"
#include "cpu/top_cells_body.h"

namespace otcuda::cpu {
namespace {

struct Lanes : ListLanes<float> {
  static constexpr int kHalfTargets = 1;
};

}  // namespace

TopCellsKernels top_cells_portable() { return kernels_of<Lanes>(); }

}  // namespace otcuda::cpu
