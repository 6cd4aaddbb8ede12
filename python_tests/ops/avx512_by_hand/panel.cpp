// SPDX-License-Identifier: Apache-2.0
// The AVX-512 kernel of power_argmax as C functions, for ctypes.
#include "cpu/power_argmax_avx512.cpp"

using otcuda::cpu::power_argmax_avx512;

extern "C" {

#define BLOCKS(name, member, width, T, Index)                                                      \
  int name##_samples_##width() { return power_argmax_avx512().width.member.samples; }              \
  void name##_panel_##width(const T* x, const T* y, const T* h, int64_t targets, int64_t D,        \
                            T* best, Index* place) {                                               \
    power_argmax_avx512().width.member.panel({x, y, h, targets, D, 0, best, place});               \
  }                                                                                                \
  void name##_settle_##width(const T* x, const T* y, const T* h, int64_t samples, int64_t targets, \
                             int64_t D, const T* best, const Index* place, T* value,               \
                             int64_t* index) {                                                     \
    power_argmax_avx512().width.member.settle(                                                     \
        {x, y, h, samples, targets, D, best, place, value, index});                                \
  }
BLOCKS(wide, blocks, f32, float, int32_t)
BLOCKS(wide, blocks, f64, double, int64_t)
BLOCKS(narrow, narrow, f32, float, int32_t)
BLOCKS(narrow, narrow, f64, double, int64_t)
#undef BLOCKS

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
