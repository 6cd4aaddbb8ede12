// SPDX-License-Identifier: Apache-2.0
// The kernels of net as C functions, for ctypes: the AVX-512 ones, and the portable ones beside them.
#include "common/net.h"
#include "cpu/net_kernels.h"

namespace {

const otcuda::cpu::NetKernels& kernels(int avx512) {
  return avx512 != 0 ? otcuda::cpu::net_kernels_avx512 : otcuda::cpu::net_kernels_portable;
}

}  // namespace

extern "C" {

void net_products(int avx512, const float* weights, const float* bias, const int64_t* taps,
                  const int64_t* sizes, const float* x, float* out) {
  kernels(avx512).products({weights, bias, taps, sizes[0], sizes[1]},
                           {x, sizes[2], out, sizes[3], sizes[4]});
}

void net_input(int avx512, const int64_t* sizes, const float* window, float* points) {
  kernels(avx512).input({sizes[0], sizes[1], sizes[2], sizes[3]}, window, points);
}

void net_output(int avx512, const int64_t* sizes, const float* bias, int inside, int after,
                const float* points, const float* skip, float* tile) {
  kernels(avx512).output({sizes[0], sizes[1], sizes[2], sizes[3]}, {bias, inside != 0, after != 0},
                         points, skip, tile);
}
}
