// SPDX-License-Identifier: Apache-2.0
#include "cpu/planar_newton.h"

#include <pybind11/pybind11.h>

#include <string>

#include "bindings/python_poll.h"
#include "bindings/source_kind.h"
#include "bindings/tensor_caster.h"
#include "common/check.h"

namespace otcuda {
namespace {

int64_t checked_targets(const TensorView& y) {
  check_tensor("y", y, DType::f32, {any, 2});
  const int64_t N = y.shape[0];
  OTCUDA_CHECK(N >= 1 && N < INT32_MAX / 2, "y holds no target, or over 2^30");
  return N;
}

pybind11::dict planar_dict(const PlanarResult& result) {
  pybind11::dict out;
  out["chi2"] = result.chi2;
  out["least"] = result.least;
  out["step"] = result.step;
  out["iterations"] = result.iterations;
  out["diagrams"] = result.diagrams;
  out["entries"] = result.entries;
  out["stuck"] = result.stuck;
  return out;
}

}  // namespace

void bind_planar_newton(pybind11::module_& m) {
  m.def(
      "planar_mass",
      [](const TensorView& y, const TensorView& h, const std::string& source,
         const TensorView& mass) {
        const int64_t N = checked_targets(y);
        check_tensor("h", h, DType::f64, {N});
        check_output("mass", mass, DType::f64, {N});
        const SourceKind kind = source_kind(source);
        Poll poll = python_poll();
        const pybind11::gil_scoped_release unlocked;
        cpu::planar_mass(y.read<float>(), N, kind, h.read<double>(), mass.write<double>(), &poll);
      },
      pybind11::arg("y"), pybind11::arg("h"), pybind11::arg("source"), pybind11::arg("mass"),
      "Masses [N] of the cells of y [N, 2] at heights h [N]. Contract: "
      "csrc/common/planar_newton.h.");
  m.def(
      "planar_newton",
      [](const TensorView& y, const TensorView& nu, const TensorView& h, const std::string& source,
         double tolerance, int iterations, double least, double step,
         const pybind11::object& callback) {
        const int64_t N = checked_targets(y);
        check_tensor("nu", nu, DType::f64, {N});
        check_output("h", h, DType::f64, {N});
        OTCUDA_CHECK(tolerance > 0 && iterations >= 0 && least >= 0 && step > 0 && step <= 1,
                     "tolerance and step are positive, step at most 1, the rest not negative");
        const cpu::PlanarProblem problem{y.read<float>(), nu.read<double>(), N,
                                         source_kind(source)};
        const PlanarSettings settings{tolerance, iterations, least, step};
        Poll poll = python_poll(callback);
        PlanarResult result;
        {
          const pybind11::gil_scoped_release unlocked;
          result = cpu::planar_newton(problem, settings, h.write<double>(), &poll);
        }
        return planar_dict(result);
      },
      pybind11::arg("y"), pybind11::arg("nu"), pybind11::arg("h"), pybind11::kw_only(),
      pybind11::arg("source"), pybind11::arg("tolerance"), pybind11::arg("iterations"),
      pybind11::arg("least") = 0.0, pybind11::arg("step") = 1.0,
      pybind11::arg("callback") = pybind11::none(),
      "h [N] in place -> chi2, least, step, iterations. Contract: csrc/common/planar_newton.h.");
}

}  // namespace otcuda
