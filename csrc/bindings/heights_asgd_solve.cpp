// SPDX-License-Identifier: Apache-2.0
#include "cpu/heights_asgd_solve.h"

#include <pybind11/pybind11.h>

#include <cmath>
#include <string>

#include "bindings/python_poll.h"
#include "bindings/source_kind.h"
#include "bindings/tensor_caster.h"
#include "common/check.h"
#include "common/heights_asgd_solve.h"

namespace otcuda {

void bind_heights_asgd_solve(pybind11::module_& m) {
  m.def(
      "heights_asgd_solve",
      [](const TensorView& y, const TensorView& nu, const TensorView& h, const TensorView& mean,
         const TensorView& step, const TensorView& rate, const TensorView& share,
         const std::string& source, uint64_t seed, int64_t batch, double limit, bool product,
         const pybind11::object& callback) {
        check_tensor("y", y, DType::f32, {any, any});
        check_on_cpu("heights_asgd_solve", "y", y);
        const int64_t N = y.shape[0], D = y.shape[1];
        OTCUDA_CHECK(N >= 1 && N < INT32_MAX, "y holds no target, or over 2^31");
        check_tensor("nu", nu, DType::f64, {N});
        check_output("h", h, DType::f64, {N});
        check_output("mean", mean, DType::f64, {N});
        check_output("step", step, DType::i64, {1});
        check_tensor("rate", rate, DType::f64, {any});
        check_tensor("share", share, DType::f64, {rate.shape[0]});
        OTCUDA_CHECK(batch >= 1 && batch <= (int64_t(1) << 40) / std::max<int64_t>(1, D),
                     "batch is " + std::to_string(batch) + ", expected 1 to 2^40 / D");
        OTCUDA_CHECK(!product || (batch % (kHalves * kHalves) == 0 && D >= 2),
                     "batch of product samples is a multiple of 256, and D at least 2");
        OTCUDA_CHECK(limit > 0 && std::isfinite(limit), "limit is not a positive number");
        const cpu::AsgdProblem problem{
            y.read<float>(), nu.read<double>(), N, D, source_kind(source), seed, product};
        const cpu::AsgdSchedule schedule{rate.read<double>(), share.read<double>(), rate.shape[0],
                                         batch, limit};
        Poll poll = python_poll(callback);
        const pybind11::gil_scoped_release unlocked;
        cpu::heights_asgd_solve(problem, schedule,
                                {h.write<double>(), mean.write<double>(), step.write<int64_t>()},
                                &poll);
      },
      pybind11::arg("y"), pybind11::arg("nu"), pybind11::arg("h"), pybind11::arg("mean"),
      pybind11::arg("step"), pybind11::arg("rate"), pybind11::arg("share"), pybind11::kw_only(),
      pybind11::arg("source"), pybind11::arg("seed"), pybind11::arg("batch"),
      pybind11::arg("limit"), pybind11::arg("product"), pybind11::arg("callback"),
      "h, mean [N] and step [1] in place. Contract: csrc/common/heights_asgd_solve.h.");
}

}  // namespace otcuda
