// SPDX-License-Identifier: Apache-2.0
#include "cpu/top_cells.h"

#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "bindings/python_poll.h"
#include "bindings/tensor_caster.h"
#include "common/check.h"
#include "common/top_cells.h"
#include "cpu/top_cells_index.h"

namespace otcuda {
namespace {

// K of the lists of so many samples.
int checked_lists(int64_t samples, const TensorView& index, const TensorView& inner,
                  const TensorView& cut) {
  check_output("index", index, DType::i32, {samples, any});
  const int64_t K = index.shape[1];
  OTCUDA_CHECK(K >= 1 && K <= kMostTopCells,
               "index has " + std::to_string(K) + " columns, expected 1 to 23");
  check_output("inner", inner, DType::f32, {samples, K});
  check_output("cut", cut, DType::f32, {samples});
  return int(K);
}

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
  const int K = checked_lists(samples, index, inner, cut);
  return {x.read<float>(),        y.read<float>(),      h.read<float>(),   x.shape[0], N, D, 0, K,
          index.write<int32_t>(), inner.write<float>(), cut.write<float>()};
}

void bind_top_cells_index(pybind11::module_& m) {
  using Index = cpu::TopCellsIndex;
  pybind11::class_<Index>(
      m, "TopCellsIndex",
      "Lists of y [N, D] at changing heights. Contract: csrc/common/top_cells.h.")
      .def(pybind11::init([](const TensorView& y) {
             check_tensor("y", y, DType::f32, {any, any});
             check_on_cpu("TopCellsIndex", "y", y);
             const int64_t N = y.shape[0];
             OTCUDA_CHECK(N >= 1 && N < INT32_MAX, "y holds no target, or over 2^31");
             return std::make_unique<Index>(y.read<float>(), N, y.shape[1]);
           }),
           pybind11::arg("y"), pybind11::keep_alive<1, 2>())
      .def(
          "set_heights",
          [](Index& index, const TensorView& h) {
            check_tensor("h", h, DType::f32, {index.N()});
            check_on_cpu("TopCellsIndex", "h", h);
            const pybind11::gil_scoped_release unlocked;
            index.set_heights(h.read<float>());
          },
          pybind11::arg("h"), "h [N], copied.")
      .def(
          "lists",
          [](Index& self, const TensorView& x, const TensorView& index, const TensorView& inner,
             const TensorView& cut, bool start, bool forced) {
            check_tensor("x", x, DType::f32, {any, self.D()});
            check_on_cpu("TopCellsIndex", "x", x);
            const int K = checked_lists(x.shape[0], index, inner, cut);
            Poll poll = python_poll();
            const pybind11::gil_scoped_release unlocked;
            self.lists(x.read<float>(), x.shape[0], K, index.write<int32_t>(), inner.write<float>(),
                       cut.write<float>(), start, forced, &poll);
          },
          pybind11::arg("x"), pybind11::arg("index"), pybind11::arg("inner"), pybind11::arg("cut"),
          pybind11::arg("start"), pybind11::arg("forced"),
          "x [B, D] -> index, inner [B, K], cut [B]; start: index and inner hold lists at other "
          "heights; forced: by the screen even where it does not seem to pay.")
      .def(
          "winners",
          [](Index& self, const TensorView& x, const TensorView& index, const TensorView& inner,
             bool forced) {
            check_tensor("x", x, DType::f32, {any, self.D()});
            check_on_cpu("TopCellsIndex", "x", x);
            check_output("index", index, DType::i32, {x.shape[0]});
            check_output("inner", inner, DType::f32, {x.shape[0]});
            Poll poll = python_poll();
            const pybind11::gil_scoped_release unlocked;
            self.winners(x.read<float>(), x.shape[0], index.write<int32_t>(), inner.write<float>(),
                         forced, &poll);
          },
          pybind11::arg("x"), pybind11::arg("index"), pybind11::arg("inner"),
          pybind11::arg("forced"), "x [B, D] -> index, inner [B]: the first of each list.");
}

}  // namespace

void bind_top_cells(pybind11::module_& m) {
  bind_top_cells_index(m);
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
