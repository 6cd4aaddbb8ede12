// SPDX-License-Identifier: Apache-2.0
#include "cuda/power_argmax.h"

#include <pybind11/pybind11.h>

#include "bindings/cuda_call.h"
#include "bindings/python_poll.h"
#include "bindings/tensor_caster.h"
#include "common/backend_info.h"
#include "common/check.h"
#include "cpu/power_argmax_groups.h"
#include "cuda/power_argmax_screen.h"

namespace otcuda {
namespace {

template <class T>
void power_argmax_on_cpu(const TensorView& x, const TensorView& y, const TensorView& h,
                         const TensorView& value, const TensorView& index) {
  const int last = x.ndim - 1;
  const cpu::ArgmaxProblem<T> problem{x.read<T>(),       y.read<T>(),           h.read<T>(),
                                      x.shape[last - 1], y.shape[last - 1],     x.shape[last],
                                      value.write<T>(),  index.write<int64_t>()};
  Poll poll = python_poll();
  const pybind11::gil_scoped_release unlocked;
  if (x.ndim == 2) {
    cpu::power_argmax(problem, &poll);
  } else {
    cpu::power_argmax_groups(x.shape[0], problem, &poll);
  }
}

DType check_power_argmax_groups(const TensorView& x, const TensorView& y, const TensorView& h,
                                const TensorView& value, const TensorView& index) {
  const DType dtype = x.dtype == DType::f64 ? DType::f64 : DType::f32;
  check_tensor("x", x, dtype, {any, any, any});
  const int64_t G = x.shape[0], B = x.shape[1];
  check_tensor("y", y, dtype, {G, any, x.shape[2]});
  OTCUDA_CHECK(y.shape[1] >= 1, "y holds no target, expected at least one");
  check_tensor("h", h, dtype, {G, y.shape[1]});
  check_output("value", value, dtype, {G, B});
  check_output("index", index, DType::i64, {G, B});
  for (const TensorView* view : {&y, &h, &value, &index}) {
    check_same_device("an argument", *view, "x", x);
  }
  return dtype;
}

DType check_power_argmax(const TensorView& x, const TensorView& y, const TensorView& h,
                         const TensorView& value, const TensorView& index) {
  const DType dtype = x.dtype == DType::f64 ? DType::f64 : DType::f32;
  check_tensor("x", x, dtype, {any, any});
  const int64_t B = x.shape[0], D = x.shape[1];
  check_tensor("y", y, dtype, {any, D});
  const int64_t N = y.shape[0];
  OTCUDA_CHECK(N >= 1, "y holds no target, expected at least one");
  check_tensor("h", h, dtype, {N});
  check_output("value", value, dtype, {B});
  check_output("index", index, DType::i64, {B});
  for (const TensorView* view : {&y, &h, &value, &index}) {
    check_same_device("an argument", *view, "x", x);
  }
  return dtype;
}

template <cuda::ScreenBy by>
void power_argmax_screened(const TensorView& x, const TensorView& y, const TensorView& h,
                           const TensorView& value, const TensorView& index,
                           const TensorView& workspace, uintptr_t stream) {
  check_power_argmax(x, y, h, value, index);
  check_on_cuda("power_argmax", "x", x);
  check_workspace(workspace, x);
  count_backend_path(by == cuda::ScreenBy::wgmma ? BackendPath::power_argmax_cuda_wgmma
                                                 : BackendPath::power_argmax_cuda_screen,
                     x.shape[0]);
  const pybind11::gil_scoped_release unlocked;
  cuda::power_argmax_screen(x, y, h, value, index, workspace, stream, by);
}

}  // namespace

void bind_power_argmax(pybind11::module_& m) {
  m.def(
      "power_argmax",
      [](const TensorView& x, const TensorView& y, const TensorView& h, const TensorView& value,
         const TensorView& index) {
        const DType dtype = x.ndim == 3 ? check_power_argmax_groups(x, y, h, value, index)
                                        : check_power_argmax(x, y, h, value, index);
        check_on_cpu("power_argmax", "x", x);
        if (dtype == DType::f32) {
          power_argmax_on_cpu<float>(x, y, h, value, index);
        } else {
          power_argmax_on_cpu<double>(x, y, h, value, index);
        }
      },
      pybind11::arg("x"), pybind11::arg("y"), pybind11::arg("h"), pybind11::arg("value"),
      pybind11::arg("index"),
      "x [B, D], y [N, D], h [N] -> value [B], index [B], or the same with G in front of each. "
      "Contract: csrc/common/power_argmax.h.");
  m.def(
      "power_argmax",
      [](const TensorView& x, const TensorView& y, const TensorView& h, const TensorView& value,
         const TensorView& index, const TensorView& workspace, uintptr_t stream) {
        check_power_argmax(x, y, h, value, index);
        check_on_cuda("power_argmax", "x", x);
        check_workspace(workspace, x);
        count_backend_path(BackendPath::power_argmax_cuda, x.shape[0]);
        const pybind11::gil_scoped_release unlocked;
        cuda::power_argmax(x, y, h, value, index, workspace, stream);
      },
      pybind11::arg("x"), pybind11::arg("y"), pybind11::arg("h"), pybind11::arg("value"),
      pybind11::arg("index"), pybind11::arg("workspace"), pybind11::arg("stream"),
      "The same on a CUDA stream; returns at once.");
  m.def(
      "power_argmax_workspace",
      [](bool is_double, int64_t B, int64_t N, int64_t D) {
        return cuda::power_argmax_workspace(is_double ? DType::f64 : DType::f32, B, N, D);
      },
      pybind11::arg("is_double"), pybind11::arg("B"), pybind11::arg("N"), pybind11::arg("D"),
      "Bytes of workspace on the device.");
  m.def("power_argmax_screen", &power_argmax_screened<cuda::ScreenBy::mma>, pybind11::arg("x"),
        pybind11::arg("y"), pybind11::arg("h"), pybind11::arg("value"), pybind11::arg("index"),
        pybind11::arg("workspace"), pybind11::arg("stream"),
        "The same through the tensor cores, float32: csrc/cuda/power_argmax_screen.h.");
  m.def("power_argmax_wgmma", &power_argmax_screened<cuda::ScreenBy::wgmma>, pybind11::arg("x"),
        pybind11::arg("y"), pybind11::arg("h"), pybind11::arg("value"), pybind11::arg("index"),
        pybind11::arg("workspace"), pybind11::arg("stream"),
        "The same by the products of warpgroups, sm_90a; workspace as for power_argmax_screen.");
  m.def("power_argmax_has_wgmma", &cuda::power_argmax_has_wgmma, pybind11::arg("device"),
        "Whether power_argmax_wgmma runs on the device of this index.");
  m.def("power_argmax_screen_workspace", &cuda::power_argmax_screen_workspace, pybind11::arg("B"),
        pybind11::arg("N"), pybind11::arg("D"), "Bytes of workspace on the device.");
}

}  // namespace otcuda
