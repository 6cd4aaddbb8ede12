// SPDX-License-Identifier: Apache-2.0
#include "cpu/heights_adam_step.h"

#include "common/backend_info.h"
#include "common/threads.h"

namespace otcuda::cpu {
namespace {

constexpr double kCellNanoseconds = 1.5;

template <class T>
void step_cells(const HeightsState<T>& state, const T* mass, const T* nu, int64_t N,
                const AdamSettings& adam, int64_t step) {
  count_backend_path(BackendPath::heights_adam_step_cpu, N);
  const AdamConstants<T> constants = adam_constants<T>(adam, step);
  const auto cells = [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      heights_adam_update(mass[i], nu[i], constants, state.h + i, state.m + i, state.v + i);
    }
  };
  parallel_for(N, 1 << 15, cells, nullptr, threads_for(kCellNanoseconds * double(N)));
}

}  // namespace

void heights_adam_step(const HeightsState<float>& state, const float* mass, const float* nu,
                       int64_t N, const AdamSettings& adam, int64_t step) {
  step_cells(state, mass, nu, N, adam, step);
}

void heights_adam_step(const HeightsState<double>& state, const double* mass, const double* nu,
                       int64_t N, const AdamSettings& adam, int64_t step) {
  step_cells(state, mass, nu, N, adam, step);
}

}  // namespace otcuda::cpu
