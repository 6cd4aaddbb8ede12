// SPDX-License-Identifier: Apache-2.0
#include "cpu/conv3.h"

#include <pybind11/pybind11.h>

#include <string>

#include "bindings/tensor_caster.h"
#include "common/check.h"
#include "common/net.h"
#include "cpu/net_kernels.h"

namespace otcuda {
namespace {

namespace py = pybind11;

// The shape of a layer whose activations are x [n, h, w, inputs] and y [n, h, w, outputs].
Conv3Shape conv3_shape(const TensorView& x, const TensorView& y) {
  check_tensor("x", x, DType::f32, {any, any, any, any});
  check_tensor("y", y, DType::f32, {x.shape[0], x.shape[1], x.shape[2], any});
  check_on_cpu("conv3", "x", x);
  check_on_cpu("conv3", "y", y);
  const bool whole = x.shape[1] % kNetTile == 0 && x.shape[2] % kNetTile == 0 &&
                     x.shape[3] % cpu::kNetBlock == 0 && y.shape[3] % cpu::kNetBlock == 0;
  OTCUDA_CHECK(whole && x.size() > 0 && y.size() > 0,
               "x is " + shape_text(x) + ", y " + shape_text(y) +
                   ", expected heights and widths in multiples of 4, channels of 16");
  return {x.shape[0], x.shape[1], x.shape[2], x.shape[3], y.shape[3]};
}

void bound_conv3(const TensorView& x, const TensorView& taps, bool turned, const TensorView& bias,
                 const TensorView& y) {
  const Conv3Shape shape = conv3_shape(x, y);
  check_tensor("taps", taps, DType::f32, {9, shape.inputs, shape.outputs});
  check_on_cpu("conv3", "taps", taps);
  check_tensor("bias", bias, DType::f32, {shape.outputs});
  check_on_cpu("conv3", "bias", bias);
  check_output("y", y, DType::f32, {any, any, any, any});
  const py::gil_scoped_release unlocked;
  cpu::conv3(shape, x.read<float>(), taps.read<float>(), turned, bias.read<float>(),
             y.write<float>());
}

void bound_conv3_kernel_gradient(const TensorView& x, const TensorView& y, const TensorView& taps) {
  const Conv3Shape shape = conv3_shape(x, y);
  check_output("taps", taps, DType::f32, {9, shape.inputs, shape.outputs});
  check_on_cpu("conv3", "taps", taps);
  const py::gil_scoped_release unlocked;
  cpu::conv3_kernel_gradient(shape, x.read<float>(), y.read<float>(), taps.write<float>());
}

}  // namespace

void bind_conv3(py::module_& m) {
  m.def("conv3", &bound_conv3, py::arg("x"), py::arg("taps"), py::arg("turned"), py::arg("bias"),
        py::arg("y"),
        "x [n, h, w, C], taps [9, C, O] -> y [n, h, w, O]. Contract: csrc/common/conv3.h.");
  m.def("conv3_kernel_gradient", &bound_conv3_kernel_gradient, py::arg("x"), py::arg("y"),
        py::arg("taps"), "x [n, h, w, C], y [n, h, w, O] -> taps [9, C, O].");
}

}  // namespace otcuda
