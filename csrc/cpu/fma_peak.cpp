// SPDX-License-Identifier: Apache-2.0
#include "cpu/fma_peak.h"

#include <time.h>

#include <algorithm>

#include "common/simd.h"
#include "cpu/fma_peak_kernel.h"

namespace otcuda::cpu {
namespace {

double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

double spin(int64_t rounds) {
  switch (simd_level()) {
#if OTCUDA_X86_LEVELS
    case SimdLevel::avx512:
      return fma_spin_avx512(rounds);
    case SimdLevel::avx2:
      return fma_spin_avx2(rounds);
#endif
    default:
      return fma_spin_portable(rounds);
  }
}

}  // namespace

double fma_peak(double seconds) {
  constexpr int64_t kRounds = 100'000;
  double best = 0.0;
  const double stop = thread_seconds() + std::min(seconds, 10.0);
  do {
    const double begin = thread_seconds();
    const double work = spin(kRounds);
    best = std::max(best, work / std::max(1e-9, thread_seconds() - begin));
  } while (thread_seconds() < stop);
  return best;
}

}  // namespace otcuda::cpu
