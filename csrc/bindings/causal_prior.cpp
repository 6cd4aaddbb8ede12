// SPDX-License-Identifier: Apache-2.0
#include "cpu/causal_prior.h"

#include <pybind11/pybind11.h>

#include <memory>
#include <utility>

#include "bindings/tensor_caster.h"
#include "common/check.h"

namespace otcuda {
namespace {

namespace py = pybind11;

// neighbours: pairs (dy, dx); layers: (weights, bias, multiplier, shift).
std::unique_ptr<cpu::CausalPrior> make_prior(const TensorView& codes, const py::tuple& neighbours,
                                             const py::tuple& layers, int precision) {
  check_tensor("codes", codes, DType::u8, {any, any});
  check_on_cpu("causal_prior", "codes", codes);
  Vector<cpu::Neighbour> around;
  for (const py::handle each : neighbours) {
    const auto pair = each.cast<py::tuple>();
    OTCUDA_CHECK(pair.size() == 2, "a neighbour is (dy, dx)");
    around.push_back({pair[0].cast<int32_t>(), pair[1].cast<int32_t>()});
  }
  Vector<cpu::PriorLayer> given;
  for (const py::handle each : layers) {
    const auto parts = each.cast<py::tuple>();
    OTCUDA_CHECK(parts.size() == 4, "a layer is weights, bias, multiplier and shift");
    const cpu::PriorLayer layer = {parts[0].cast<TensorView>(), parts[1].cast<TensorView>(),
                                   parts[2].cast<TensorView>(), parts[3].cast<int>()};
    check_tensor("weights", layer.weights, DType::i8, {any, any});
    check_tensor("bias", layer.bias, DType::i32, {layer.weights.shape[0]});
    check_tensor("multiplier", layer.multiplier, DType::i32, {layer.weights.shape[0]});
    for (const TensorView* view : {&layer.weights, &layer.bias, &layer.multiplier}) {
      check_on_cpu("causal_prior", "a layer", *view);
    }
    given.push_back(layer);
  }
  return std::make_unique<cpu::CausalPrior>(codes, std::move(around), given, precision);
}

}  // namespace

void bind_causal_prior(py::module_& m) {
  py::class_<cpu::CausalPrior>(m, "CausalPrior", "Contract: csrc/common/causal_prior.h.")
      .def(py::init(&make_prior), py::arg("codes"), py::arg("neighbours"), py::arg("layers"),
           py::arg("precision"));
}

}  // namespace otcuda
