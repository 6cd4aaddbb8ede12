// SPDX-License-Identifier: Apache-2.0
#include "cpu/tables.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <string>

#include "bindings/python_poll.h"
#include "bindings/tensor_caster.h"
#include "common/check.h"

namespace otcuda {
namespace {

using Weights = Vector<uint32_t> (*)(uint64_t, int32_t, int64_t);

// One row a scale, so that a long list can be interrupted.
template <Weights weights>
void fill_weights(const TensorView& scale_q16, int32_t low, const TensorView& out) {
  check_tensor("scale_q16", scale_q16, DType::i64, {any});
  const int64_t T = scale_q16.shape[0];
  check_output("weights", out, DType::u32, {T, any});
  check_on_cpu("tables", "weights", out);
  const int64_t n = out.shape[1];
  OTCUDA_CHECK(n >= 1 && low <= 0 && int64_t{low} + n > 0, "the alphabet does not hold 0");
  const pybind11::none nobody;
  Poll poll = python_poll(nobody);
  const pybind11::gil_scoped_release unlocked;
  for (int64_t t = 0; t < T; ++t) {
    const int64_t scale = scale_q16.read<int64_t>()[t];
    OTCUDA_CHECK(scale >= int64_t{1} << 11 && scale <= int64_t{1} << 32,
                 "scales[" + std::to_string(t) + "] lies outside 1/32 .. 65536");
    const Vector<uint32_t> row = weights(static_cast<uint64_t>(scale), low, n);
    std::copy(row.begin(), row.end(), out.write<uint32_t>() + t * n);
    poll(double(t + 1) / double(T));
  }
}

std::unique_ptr<cpu::Tables> make_tables(const TensorView& frequencies, int32_t low, int precision,
                                         bool escape) {
  check_tensor("frequencies", frequencies, DType::u32, {any, any});
  check_on_cpu("tables", "frequencies", frequencies);
  const pybind11::gil_scoped_release unlocked;
  return std::make_unique<cpu::Tables>(frequencies.read<uint32_t>(), frequencies.shape[0],
                                       frequencies.shape[1], low, precision, escape);
}

void quantise_weights(const TensorView& weights, int precision, bool escape,
                      const TensorView& frequencies) {
  check_tensor("weights", weights, DType::u32, {any, any});
  check_output("frequencies", frequencies, DType::u32, {weights.shape[0], weights.shape[1]});
  check_on_cpu("tables", "weights", weights);
  check_on_cpu("tables", "frequencies", frequencies);
  const pybind11::none nobody;
  Poll poll = python_poll(nobody);
  const pybind11::gil_scoped_release unlocked;
  cpu::quantise(weights.read<uint32_t>(), weights.shape[0], weights.shape[1], precision, escape,
                frequencies.write<uint32_t>(), poll);
}

}  // namespace

void bind_tables(pybind11::module_& m) {
  namespace py = pybind11;
  py::class_<cpu::Tables>(m, "Tables", "Integer tables. Contract: csrc/common/tables.h.")
      .def(py::init(&make_tables), py::arg("frequencies"), py::arg("low"), py::arg("precision"),
           py::arg("escape"));
  m.def("quantise_weights", &quantise_weights, py::arg("weights"), py::arg("precision"),
        py::arg("escape"), py::arg("frequencies"),
        "weights [T, n] uint32 -> frequencies [T, n] uint32. Contract: csrc/common/tables.h.");
  m.def("gaussian_weights", &fill_weights<&cpu::gaussian_weights>, py::arg("scale_q16"),
        py::arg("low"), py::arg("weights"), "scale_q16 [T] int64 -> weights [T, n] uint32.");
  m.def("laplace_weights", &fill_weights<&cpu::laplace_weights>, py::arg("scale_q16"),
        py::arg("low"), py::arg("weights"), "scale_q16 [T] int64 -> weights [T, n] uint32.");
}

}  // namespace otcuda
