// SPDX-License-Identifier: Apache-2.0
#include "cpu/list_newton.h"

#include <pybind11/pybind11.h>

#include <cmath>
#include <string>

#include "bindings/python_poll.h"
#include "bindings/tensor_caster.h"
#include "common/check.h"

namespace otcuda {
namespace {

cpu::CellLists checked_lists(const TensorView& index, const TensorView& inner,
                             const TensorView& reach, int64_t N) {
  check_tensor("index", index, DType::i32, {any, any});
  const int64_t M = index.shape[0], K = index.shape[1];
  OTCUDA_CHECK(M >= 1 && K >= 1 && K <= 23,
               "index is " + shape_text(index) + ", expected at least one row and 1 to 23 columns");
  check_tensor("inner", inner, DType::f32, {M, K});
  check_tensor("reach", reach, DType::f32, {M});
  OTCUDA_CHECK(N >= 1 && N < INT32_MAX, "h holds no cell, or over 2^31");
  const cpu::CellLists lists{
      index.read<int32_t>(), inner.read<float>(), reach.read<float>(), M, K, N};
  OTCUDA_CHECK(cpu::list_check(lists), "index names a cell outside h");
  return lists;
}

pybind11::dict newton_dict(const NewtonResult& result) {
  pybind11::dict out;
  out["residual"] = result.residual;
  out["energy"] = result.energy;
  out["iterations"] = result.iterations;
  out["cg_iterations"] = result.cg_iterations;
  out["unlisted"] = result.unlisted;
  return out;
}

}  // namespace

void bind_list_newton(pybind11::module_& m) {
  m.def(
      "list_measure",
      [](const TensorView& index, const TensorView& inner, const TensorView& reach,
         const TensorView& h, const TensorView& counts, const TensorView& gap) {
        check_tensor("h", h, DType::f64, {any});
        const int64_t N = h.shape[0];
        const cpu::CellLists lists = checked_lists(index, inner, reach, N);
        check_output("counts", counts, DType::i64, {N});
        check_output("gap", gap, DType::f64, {N});
        Poll poll = python_poll();
        double mean_gap = 0.0, value = 0.0;
        {
          const pybind11::gil_scoped_release unlocked;
          value = cpu::list_measure(lists, h.read<double>(), counts.write<int64_t>(),
                                    gap.write<double>(), &mean_gap, &poll);
        }
        return pybind11::make_tuple(value, mean_gap);
      },
      pybind11::arg("index"), pybind11::arg("inner"), pybind11::arg("reach"), pybind11::arg("h"),
      pybind11::arg("counts"), pybind11::arg("gap"),
      "-> (mean best value, mean gap); counts, gap [N] written. Contract: "
      "csrc/common/list_newton.h.");
  m.def(
      "list_newton",
      [](const TensorView& index, const TensorView& inner, const TensorView& reach,
         const TensorView& nu, const TensorView& gap, const TensorView& h, double tolerance,
         double room, int iterations) {
        check_output("h", h, DType::f64, {any});
        const int64_t N = h.shape[0];
        const cpu::CellLists lists = checked_lists(index, inner, reach, N);
        check_tensor("nu", nu, DType::f64, {N});
        check_tensor("gap", gap, DType::f64, {N});
        OTCUDA_CHECK(tolerance > 0 && room > 0 && iterations >= 0,
                     "tolerance and room are positive, iterations is not negative");
        Poll poll = python_poll();
        NewtonResult result;
        {
          const pybind11::gil_scoped_release unlocked;
          result = cpu::list_newton(lists, nu.read<double>(), gap.read<double>(),
                                    {tolerance, room, iterations}, h.write<double>(), &poll);
        }
        return newton_dict(result);
      },
      pybind11::arg("index"), pybind11::arg("inner"), pybind11::arg("reach"), pybind11::arg("nu"),
      pybind11::arg("gap"), pybind11::arg("h"), pybind11::kw_only(), pybind11::arg("tolerance"),
      pybind11::arg("room"), pybind11::arg("iterations"),
      "h [N] in place -> residual, energy, iterations. Contract: csrc/common/list_newton.h.");
}

}  // namespace otcuda
