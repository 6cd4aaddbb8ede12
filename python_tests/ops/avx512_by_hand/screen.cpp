// SPDX-License-Identifier: Apache-2.0
// The AVX-512 kernel of power_screen as C functions, for ctypes.
#include "cpu/power_screen_avx512.cpp"

using otcuda::cpu::power_screen_avx512;

extern "C" {

int screen_samples() { return power_screen_avx512().samples; }
int screen_targets() { return power_screen_avx512().targets; }

// Hits are (target, sample, sum); the number of them is returned.
int64_t screen_panel(const uint8_t* x, const int8_t* y, const int32_t* start, const int32_t* bound,
                     int64_t targets, int64_t steps, int32_t* threshold, int32_t* hits) {
  const int64_t room = targets * screen_samples();
  otcuda::cpu::ScreenPanel panel{x, y, start, bound, targets, steps, threshold, 1 << 30,
                                 reinterpret_cast<otcuda::cpu::ScreenHit*>(hits), 0, room, nullptr};
  return power_screen_avx512().panel(&panel, 0) == targets ? panel.count : -1;
}
}
