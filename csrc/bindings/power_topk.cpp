// SPDX-License-Identifier: Apache-2.0
#include "cpu/power_topk.h"

#include <pybind11/pybind11.h>

#include <string>

#include "bindings/python_poll.h"
#include "bindings/tensor_caster.h"
#include "common/check.h"
#include "common/power_topk.h"

namespace otcuda {
namespace {

template <class T>
void power_topk_on_cpu(const TensorView& x, const TensorView& y, const TensorView& h,
                       const TensorView& value, const TensorView& index) {
  Poll poll = python_poll();
  const pybind11::gil_scoped_release unlocked;
  cpu::power_topk(cpu::TopkProblem<T>{x.read<T>(), y.read<T>(), h.read<T>(), x.shape[0], x.shape[1],
                                      y.shape[1], x.shape[2], int(value.shape[2]), value.write<T>(),
                                      index.write<int64_t>()},
                  &poll);
}

}  // namespace

void bind_power_topk(pybind11::module_& m) {
  m.def(
      "power_topk",
      [](const TensorView& x, const TensorView& y, const TensorView& h, const TensorView& value,
         const TensorView& index) {
        const DType dtype = x.dtype == DType::f64 ? DType::f64 : DType::f32;
        check_tensor("x", x, dtype, {any, any, any});
        const int64_t G = x.shape[0], B = x.shape[1];
        check_tensor("y", y, dtype, {G, any, x.shape[2]});
        OTCUDA_CHECK(y.shape[1] >= 1, "y holds no target, expected at least one");
        check_tensor("h", h, dtype, {G, y.shape[1]});
        check_output("value", value, dtype, {G, B, any});
        const int64_t k = value.shape[2];
        OTCUDA_CHECK(k >= 1 && k <= kMostTopk, "k is " + std::to_string(k) + ", expected 1 to 64");
        check_output("index", index, DType::i64, {G, B, k});
        check_on_cpu("power_topk", "x", x);
        for (const TensorView* view : {&y, &h, &value, &index}) {
          check_same_device("an argument", *view, "x", x);
        }
        if (dtype == DType::f32) {
          power_topk_on_cpu<float>(x, y, h, value, index);
        } else {
          power_topk_on_cpu<double>(x, y, h, value, index);
        }
      },
      pybind11::arg("x"), pybind11::arg("y"), pybind11::arg("h"), pybind11::arg("value"),
      pybind11::arg("index"),
      "x [G, B, D], y [G, N, D], h [G, N] -> value, index [G, B, k]. Contract: "
      "csrc/common/power_topk.h.");
}

}  // namespace otcuda
