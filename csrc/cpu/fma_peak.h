// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace otcuda::cpu {

// float32 FLOP/s that one core reaches with multiply-adds on registers at the level in force: what
// benchmarks divide by. Best of short runs within `seconds` of CPU time of this thread.
double fma_peak(double seconds);

}  // namespace otcuda::cpu
