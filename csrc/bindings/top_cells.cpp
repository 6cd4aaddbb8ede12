// SPDX-License-Identifier: Apache-2.0
#include "cpu/top_cells.h"

#include <pybind11/pybind11.h>

#include <string>

#include "bindings/python_poll.h"
#include "bindings/tensor_caster.h"
#include "common/check.h"
#include "common/top_cells.h"

namespace otcuda {
namespace {

// `samples` rows of results; B counts what x has along its first axis.
cpu::TopCells checked_top_cells(const TensorView& x, const TensorView& y, const TensorView& h,
                                const TensorView& index, const TensorView& inner,
                                const TensorView& cut) {
  check_tensor("y", y, DType::f32, {any, x.shape[x.ndim - 1]});
  check_on_cpu("top_cells", "y", y);
  const int64_t N = y.shape[0], D = y.shape[1];
  OTCUDA_CHECK(N >= 1 && N < INT32_MAX, "y holds no target, or over 2^31");
  check_tensor("h", h, DType::f32, {N});
  const int64_t samples = x.ndim == 3 ? x.shape[0] * kHalves * kHalves : x.shape[0];
  check_output("index", index, DType::i32, {samples, any});
  const int64_t K = index.shape[1];
  OTCUDA_CHECK(K >= 1 && K <= kMostTopCells,
               "index has " + std::to_string(K) + " columns, expected 1 to 23");
  check_output("inner", inner, DType::f32, {samples, K});
  check_output("cut", cut, DType::f32, {samples});
  return {x.read<float>(), y.read<float>(),        h.read<float>(),      x.shape[0],        N, D, 0,
          int(K),          index.write<int32_t>(), inner.write<float>(), cut.write<float>()};
}

}  // namespace

void bind_top_cells(pybind11::module_& m) {
  m.def(
      "top_cells",
      [](const TensorView& x, const TensorView& y, const TensorView& h, const TensorView& index,
         const TensorView& inner, const TensorView& cut) {
        check_tensor("x", x, DType::f32, {any, any});
        const cpu::TopCells problem = checked_top_cells(x, y, h, index, inner, cut);
        Poll poll = python_poll();
        const pybind11::gil_scoped_release unlocked;
        cpu::top_cells(problem, &poll);
      },
      pybind11::arg("x"), pybind11::arg("y"), pybind11::arg("h"), pybind11::arg("index"),
      pybind11::arg("inner"), pybind11::arg("cut"),
      "x [B, D], y [N, D], h [N] -> index, inner [B, K], cut [B]. Contract: "
      "csrc/common/top_cells.h.");
  m.def(
      "top_cells_product",
      [](const TensorView& x, const TensorView& y, const TensorView& h, int64_t L,
         const TensorView& index, const TensorView& inner, const TensorView& cut) {
        check_tensor("x", x, DType::f32, {any, kHalves, any});
        cpu::TopCells problem = checked_top_cells(x, y, h, index, inner, cut);
        OTCUDA_CHECK(L >= 0 && L <= problem.D, "L is " + std::to_string(L) + ", expected 0 to D");
        problem.L = L;
        Poll poll = python_poll();
        const pybind11::gil_scoped_release unlocked;
        cpu::top_cells_product(problem, &poll);
      },
      pybind11::arg("x"), pybind11::arg("y"), pybind11::arg("h"), pybind11::arg("L"),
      pybind11::arg("index"), pybind11::arg("inner"), pybind11::arg("cut"),
      "The same for x [G, 16, D] of product samples: results have 256 G rows.");
}

}  // namespace otcuda
