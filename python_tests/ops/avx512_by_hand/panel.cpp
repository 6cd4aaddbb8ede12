// SPDX-License-Identifier: Apache-2.0
// The AVX-512 kernel of power_argmax as C functions, for ctypes.
#include "cpu/power_argmax_avx512.cpp"

using otcuda::cpu::power_argmax_avx512;

extern "C" {

int samples_f32() { return power_argmax_avx512().f32.samples; }
int samples_f64() { return power_argmax_avx512().f64.samples; }

void panel_f32(const float* x, const float* y, const float* h, int64_t targets, int64_t D,
               float* best, int32_t* place) {
  power_argmax_avx512().f32.panel({x, y, h, targets, D, 0, best, place});
}

void panel_f64(const double* x, const double* y, const double* h, int64_t targets, int64_t D,
               double* best, int64_t* place) {
  power_argmax_avx512().f64.panel({x, y, h, targets, D, 0, best, place});
}

void settle_f32(const float* x, const float* y, const float* h, int64_t samples, int64_t targets,
                int64_t D, const float* best, const int32_t* place, float* value, int64_t* index) {
  power_argmax_avx512().f32.settle({x, y, h, samples, targets, D, best, place, value, index});
}

void settle_f64(const double* x, const double* y, const double* h, int64_t samples, int64_t targets,
                int64_t D, const double* best, const int64_t* place, double* value,
                int64_t* index) {
  power_argmax_avx512().f64.settle({x, y, h, samples, targets, D, best, place, value, index});
}

int64_t first_number_f32(const float* x, const float* y, const float* h, int64_t targets,
                         int64_t D) {
  return power_argmax_avx512().f32.first_number(x, y, h, targets, D);
}

int64_t first_number_f64(const double* x, const double* y, const double* h, int64_t targets,
                         int64_t D) {
  return power_argmax_avx512().f64.first_number(x, y, h, targets, D);
}

int few_lanes_f32() { return power_argmax_avx512().f32.few_lanes; }
int few_lanes_f64() { return power_argmax_avx512().f64.few_lanes; }

void few_f32(const float* x, const float* y, const float* h, int64_t samples, int64_t targets,
             int64_t D, float* spare, float* best, int32_t* place) {
  power_argmax_avx512().f32.few({x, y, h, samples, targets, D, targets * D, 0, spare, best, place});
}

void few_f64(const double* x, const double* y, const double* h, int64_t samples, int64_t targets,
             int64_t D, double* spare, double* best, int64_t* place) {
  power_argmax_avx512().f64.few({x, y, h, samples, targets, D, targets * D, 0, spare, best, place});
}
}
