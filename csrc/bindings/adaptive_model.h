// SPDX-License-Identifier: Apache-2.0
// A model of otcuda.coding.adaptive as the core takes it: (bits, fast, slow, contexts, counters,
// weights), copied, since other threads may code by the same one.
#pragma once

#include <pybind11/pybind11.h>

#include "bindings/tensor_caster.h"
#include "common/check.h"
#include "cpu/adaptive.h"

namespace otcuda {

inline void check_map(const TensorView& map) {
  check_tensor("symbols", map, DType::u16, {any, any});
  check_on_cpu("adaptive", "symbols", map);
}

inline cpu::AdaptiveModel adaptive_model(const pybind11::tuple& state) {
  namespace py = pybind11;
  OTCUDA_CHECK(state.size() == 6, "a model has 6 parts");
  cpu::AdaptiveModel model = {
      state[0].cast<int>(), state[1].cast<int>(), state[2].cast<int>(), {}, {}, {}};
  for (const py::handle input : state[3].cast<py::tuple>()) {
    Vector<cpu::Neighbour> neighbours;
    for (const py::handle pair : input.cast<py::tuple>()) {
      const auto offset = pair.cast<py::tuple>();
      OTCUDA_CHECK(offset.size() == 2, "a neighbour is (dy, dx)");
      neighbours.push_back({offset[0].cast<int32_t>(), offset[1].cast<int32_t>()});
    }
    model.inputs.push_back(std::move(neighbours));
  }
  const auto counters = state[4].cast<TensorView>(), weights = state[5].cast<TensorView>();
  check_tensor("counters", counters, DType::u16, {any});
  check_tensor("weights", weights, DType::i32, {any});
  check_on_cpu("adaptive", "counters", counters);
  check_on_cpu("adaptive", "weights", weights);
  const auto* c = counters.read<uint16_t>();
  const auto* w = weights.read<int32_t>();
  model.counters.assign(c, c + counters.size());
  model.weights.assign(w, w + weights.size());
  model.check();
  return model;
}

}  // namespace otcuda
