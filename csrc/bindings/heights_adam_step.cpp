// SPDX-License-Identifier: Apache-2.0
#include "cpu/heights_adam_step.h"

#include <pybind11/pybind11.h>

#include "bindings/adam_settings.h"
#include "bindings/cuda_call.h"
#include "bindings/tensor_caster.h"
#include "common/backend_info.h"
#include "common/check.h"
#include "cuda/heights_adam_step.h"

namespace otcuda {
namespace {

template <class T>
void step_on_cpu(const TensorView* state, const TensorView& mass, const TensorView& nu,
                 const AdamSettings& adam, int64_t step) {
  const pybind11::gil_scoped_release unlocked;
  cpu::heights_adam_step({state[0].write<T>(), state[1].write<T>(), state[2].write<T>()},
                         mass.read<T>(), nu.read<T>(), nu.shape[0], adam, step);
}

DType check_step(const TensorView* state, const TensorView& mass, const TensorView& nu,
                 const AdamSettings& adam, int64_t step) {
  const TensorView &h = state[0], &m = state[1], &v = state[2];
  const DType dtype = h.dtype == DType::f64 ? DType::f64 : DType::f32;
  check_output("h", h, dtype, {any});
  const int64_t N = h.shape[0];
  check_output("m", m, dtype, {N});
  check_output("v", v, dtype, {N});
  check_tensor("mass", mass, dtype, {N});
  check_tensor("nu", nu, dtype, {N});
  OTCUDA_CHECK(step >= 0, "step is negative, expected 0 (no bias correction) or more");
  check_adam(adam);
  for (const TensorView* view : {&m, &v, &mass, &nu}) check_same_device("it", *view, "h", h);
  return dtype;
}

}  // namespace

void bind_heights_adam_step(pybind11::module_& m) {
  m.def(
      "heights_adam_step",
      [](const TensorView& h, const TensorView& m, const TensorView& v, const TensorView& mass,
         const TensorView& nu, int64_t step, double lr, double beta1, double beta2, double eps) {
        const AdamSettings adam{lr, beta1, beta2, eps};
        const TensorView state[] = {h, m, v};
        const DType dtype = check_step(state, mass, nu, adam, step);
        check_on_cpu("heights_adam_step", "h", h);
        if (dtype == DType::f32) {
          step_on_cpu<float>(state, mass, nu, adam, step);
        } else {
          step_on_cpu<double>(state, mass, nu, adam, step);
        }
      },
      pybind11::arg("h"), pybind11::arg("m"), pybind11::arg("v"), pybind11::arg("mass"),
      pybind11::arg("nu"), pybind11::arg("step"), pybind11::arg("lr"), pybind11::arg("beta1"),
      pybind11::arg("beta2"), pybind11::arg("eps"),
      "h, m, v [N] in place from mass, nu [N]. Contract: csrc/common/heights_adam_step.h.");
  m.def(
      "heights_adam_step",
      [](const TensorView& h, const TensorView& m, const TensorView& v, const TensorView& mass,
         const TensorView& nu, int64_t step, double lr, double beta1, double beta2, double eps,
         uintptr_t stream) {
        const AdamSettings adam{lr, beta1, beta2, eps};
        const TensorView state[] = {h, m, v};
        check_step(state, mass, nu, adam, step);
        check_on_cuda("heights_adam_step", "h", h);
        count_backend_path(BackendPath::heights_adam_step_cuda, h.shape[0]);
        const pybind11::gil_scoped_release unlocked;
        cuda::heights_adam_step(h, m, v, mass, nu, adam, step, stream);
      },
      pybind11::arg("h"), pybind11::arg("m"), pybind11::arg("v"), pybind11::arg("mass"),
      pybind11::arg("nu"), pybind11::arg("step"), pybind11::arg("lr"), pybind11::arg("beta1"),
      pybind11::arg("beta2"), pybind11::arg("eps"), pybind11::arg("stream"),
      "The same on a CUDA stream.");
}

}  // namespace otcuda
