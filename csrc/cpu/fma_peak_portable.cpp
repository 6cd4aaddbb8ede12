// SPDX-License-Identifier: Apache-2.0
#include "common/host_device.h"
#include "cpu/fma_peak_kernel.h"

namespace otcuda::cpu {

// Without the instruction a multiply-add is a call: the peak of the portable level is the speed of
// that call.
double fma_spin_portable(int64_t rounds) {
  float sums[4] = {};
  volatile float half = 0.5f;
  const float a = half;
  for (int64_t round = 0; round < rounds; ++round) {
    for (float& sum : sums) sum = exact_fma(sum, a, a);
  }
  half = sums[0] + sums[1] + sums[2] + sums[3];
  return 2.0 * 4 * double(rounds);
}

}  // namespace otcuda::cpu
