// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.h"
#include "cuda/heights_adam_step.h"

namespace otcuda::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads)
    heights_adam_step_kernel(const T* __restrict__ mass, const T* __restrict__ nu, int64_t N,
                             AdamConstants<T> constants, T* __restrict__ h, T* __restrict__ m,
                             T* __restrict__ v) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < N) heights_adam_update(mass[i], nu[i], constants, h + i, m + i, v + i);
}

template <class T>
void launch(const TensorView& h, const TensorView& m, const TensorView& v, const TensorView& mass,
            const TensorView& nu, const AdamConstants<T>& constants, uintptr_t stream) {
  const int64_t N = h.shape[0];
  OTCUDA_LAUNCH((heights_adam_step_kernel<T>), dim3{unsigned(ceil_div(N, kThreads))},
                dim3{kThreads}, 0, stream_of(stream), mass.read<T>(), nu.read<T>(), N, constants,
                h.write<T>(), m.write<T>(), v.write<T>());
  check_launch("heights_adam_step");
}

}  // namespace

void heights_adam_step(const TensorView& h, const TensorView& m, const TensorView& v,
                       const TensorView& mass, const TensorView& nu, const AdamSettings& adam,
                       int64_t step, uintptr_t stream) {
  if (h.shape[0] == 0) return;
  const DeviceGuard guard(h);
  if (h.dtype == DType::f64) {
    launch(h, m, v, mass, nu, adam_constants<double>(adam, step), stream);
  } else {
    launch(h, m, v, mass, nu, adam_constants<float>(adam, step), stream);
  }
}

}  // namespace otcuda::cuda
