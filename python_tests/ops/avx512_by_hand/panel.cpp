// SPDX-License-Identifier: Apache-2.0
// The AVX-512 kernel of power_argmax as a C function, for ctypes.
#include "cpu/power_argmax_avx512.cpp"

extern "C" {

int samples_f32() { return otcuda::cpu::power_argmax_avx512().f32.samples; }
int samples_f64() { return otcuda::cpu::power_argmax_avx512().f64.samples; }

void panel_f32(const float* x, const float* y, const float* h, int64_t targets, int64_t D,
               float* best, int32_t* index) {
  otcuda::cpu::power_argmax_avx512().f32.panel({x, y, h, targets, D, 0, best, index});
}

void panel_f64(const double* x, const double* y, const double* h, int64_t targets, int64_t D,
               double* best, int64_t* index) {
  otcuda::cpu::power_argmax_avx512().f64.panel({x, y, h, targets, D, 0, best, index});
}
}
