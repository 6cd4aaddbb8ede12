// SPDX-License-Identifier: Apache-2.0
#include "cpu/heights_adam_solve.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <string>

#include "bindings/adam_settings.h"
#include "bindings/cuda_call.h"
#include "bindings/python_poll.h"
#include "bindings/source_kind.h"
#include "bindings/tensor_caster.h"
#include "common/backend_info.h"
#include "common/check.h"
#include "cuda/heights_adam_solve.h"

namespace otcuda {
namespace {

struct SolveArguments {
  TensorView y, nu, h, m, v, step, lr, chi2;
  SourceKind source;
  uint64_t seed;
  int64_t batch;
  bool bias_correction;
  AdamSettings adam;
};

void check_solve(const SolveArguments& a, DType dtype) {
  check_tensor("y", a.y, dtype, {any, any});
  const int64_t N = a.y.shape[0];
  OTCUDA_CHECK(N >= 1, "y holds no target, expected at least one");
  check_tensor("nu", a.nu, dtype, {N});
  check_output("h", a.h, dtype, {N});
  check_output("m", a.m, dtype, {N});
  check_output("v", a.v, dtype, {N});
  check_output("step", a.step, DType::i64, {1});
  check_tensor("lr", a.lr, DType::f64, {any});
  check_output("chi2", a.chi2, DType::f64, {a.lr.shape[0]});
  OTCUDA_CHECK(a.batch >= 1, "batch is " + std::to_string(a.batch) + ", expected at least 1");
  // Far below what would overflow the size of x, far above what any machine draws at a time.
  OTCUDA_CHECK(a.batch <= (int64_t(1) << 40) / std::max<int64_t>(1, a.y.shape[1]),
               "batch * D is over 2^40");
  check_adam(a.adam);
  for (const TensorView* view : {&a.nu, &a.h, &a.m, &a.v}) {
    check_same_device("nu, h, m or v", *view, "y", a.y);
  }
}

template <class T>
void solve_on_cpu(const SolveArguments& a, Poll* poll) {
  const pybind11::gil_scoped_release unlocked;
  const cpu::HeightsProblem<T> problem{a.y.read<T>(), a.nu.read<T>(), a.y.shape[0],
                                       a.y.shape[1],  a.source,       a.seed};
  const cpu::AdamSchedule schedule{a.adam, a.lr.read<double>(), a.lr.shape[0], a.batch,
                                   a.bias_correction};
  cpu::heights_adam_solve(problem, schedule, {a.h.write<T>(), a.m.write<T>(), a.v.write<T>()},
                          a.step.write<int64_t>(), a.chi2.write<double>(), poll);
}

void solve_on_cuda(const SolveArguments& a, const TensorView& workspace, uintptr_t stream,
                   Poll* poll) {
  check_on_cuda("heights_adam_solve", "y", a.y);
  check_same_device("chi2", a.chi2, "y", a.y);
  const bool counted_there = a.step.device != Device::cpu;
  if (counted_there) check_same_device("step", a.step, "y", a.y);
  check_on_cpu("heights_adam_solve", "lr", a.lr);
  check_workspace(workspace, a.y);
  count_backend_path(BackendPath::power_argmax_cuda, a.batch * a.lr.shape[0]);
  const pybind11::gil_scoped_release unlocked;
  int64_t* step = a.step.write<int64_t>();
  cuda::heights_adam_solve(
      {a.y, a.nu, a.h, a.m, a.v, a.chi2, a.lr.read<double>(), counted_there ? nullptr : step,
       a.source, a.seed, a.batch, a.bias_correction, a.adam, counted_there ? step : nullptr},
      workspace, poll, stream);
}

void bind_heights_adam_solve_on_cuda(pybind11::module_& m) {
  m.def(
      "heights_adam_solve",
      [](const TensorView& y, const TensorView& nu, const TensorView& h, const TensorView& m,
         const TensorView& v, const TensorView& step, const TensorView& lr, const TensorView& chi2,
         const TensorView& workspace, uintptr_t stream, const std::string& source, uint64_t seed,
         int64_t batch, bool bias_correction, double beta1, double beta2, double eps,
         const pybind11::object& callback) {
        const AdamSettings adam{0.0, beta1, beta2, eps};
        const SolveArguments a{
            y,   nu, h, m, v, step, lr, chi2, source_kind(source), seed, batch, bias_correction,
            adam};
        check_solve(a, y.dtype == DType::f64 ? DType::f64 : DType::f32);
        Poll poll = python_poll(callback);
        solve_on_cuda(a, workspace, stream, &poll);
      },
      pybind11::arg("y"), pybind11::arg("nu"), pybind11::arg("h"), pybind11::arg("m"),
      pybind11::arg("v"), pybind11::arg("step"), pybind11::arg("lr"), pybind11::arg("chi2"),
      pybind11::arg("workspace"), pybind11::arg("stream"), pybind11::kw_only(),
      pybind11::arg("source"), pybind11::arg("seed"), pybind11::arg("batch"),
      pybind11::arg("bias_correction"), pybind11::arg("beta1"), pybind11::arg("beta2"),
      pybind11::arg("eps"), pybind11::arg("callback"),
      "The same on a CUDA stream, which it does not wait for; lr lies in host memory, step there "
      "or on the device: csrc/cuda/heights_adam_solve.h.");
  m.def(
      "heights_adam_solve_workspace",
      [](bool is_double, int64_t N, int64_t D, int64_t batch) {
        const DType dtype = is_double ? DType::f64 : DType::f32;
        return cuda::heights_adam_solve_workspace(dtype, N, D, batch);
      },
      pybind11::arg("is_double"), pybind11::arg("N"), pybind11::arg("D"), pybind11::arg("batch"),
      "Bytes of workspace on the device.");
}

}  // namespace

void bind_heights_adam_solve(pybind11::module_& m) {
  m.def(
      "heights_adam_solve",
      [](const TensorView& y, const TensorView& nu, const TensorView& h, const TensorView& m,
         const TensorView& v, const TensorView& step, const TensorView& lr, const TensorView& chi2,
         const std::string& source, uint64_t seed, int64_t batch, bool bias_correction,
         double beta1, double beta2, double eps, const pybind11::object& callback) {
        const SolveArguments a{y,
                               nu,
                               h,
                               m,
                               v,
                               step,
                               lr,
                               chi2,
                               source_kind(source),
                               seed,
                               batch,
                               bias_correction,
                               {0.0, beta1, beta2, eps}};
        const DType dtype = y.dtype == DType::f64 ? DType::f64 : DType::f32;
        check_solve(a, dtype);
        check_on_cpu("heights_adam_solve", "y", y);
        Poll poll = python_poll(callback);
        if (dtype == DType::f32) {
          solve_on_cpu<float>(a, &poll);
        } else {
          solve_on_cpu<double>(a, &poll);
        }
      },
      pybind11::arg("y"), pybind11::arg("nu"), pybind11::arg("h"), pybind11::arg("m"),
      pybind11::arg("v"), pybind11::arg("step"), pybind11::arg("lr"), pybind11::arg("chi2"),
      pybind11::kw_only(), pybind11::arg("source"), pybind11::arg("seed"), pybind11::arg("batch"),
      pybind11::arg("bias_correction"), pybind11::arg("beta1"), pybind11::arg("beta2"),
      pybind11::arg("eps"), pybind11::arg("callback"),
      "h, m, v [N] and step [1] in place. Contract: csrc/common/heights_adam_solve.h.");
  bind_heights_adam_solve_on_cuda(m);
}

}  // namespace otcuda
