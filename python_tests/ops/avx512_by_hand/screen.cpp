// SPDX-License-Identifier: Apache-2.0
// A kernel of power_screen as C functions, for ctypes: with VNNI where OTCUDA_VNNI is defined, of
// bfloat16 where OTCUDA_BF16 is.
#ifdef OTCUDA_BF16
#include "cpu/power_screen_bf16.cpp"
#define kernels otcuda::cpu::power_screen_bf16
#elif defined(OTCUDA_VNNI)
#include "cpu/power_screen_vnni.cpp"
#define kernels otcuda::cpu::power_screen_vnni
#else
#include "cpu/power_screen_avx512.cpp"
#define kernels otcuda::cpu::power_screen_avx512
#endif

extern "C" {

int screen_samples() { return kernels().samples; }
int screen_targets() { return kernels().targets; }

// Hits are (target, sample, sum); the number of them is returned.
int64_t screen_panel(const uint8_t* x, const int8_t* y, const int32_t* start, const int32_t* bound,
                     int64_t targets, int64_t steps, int32_t* threshold, int32_t* hits) {
  const int64_t room = targets * screen_samples();
  otcuda::cpu::ScreenPanel panel{x, y, start, bound, targets, steps, threshold, 1 << 30,
                                 reinterpret_cast<otcuda::cpu::ScreenHit*>(hits), 0, room, nullptr};
  return kernels().panel(&panel, 0) == targets ? panel.count : -1;
}
}
