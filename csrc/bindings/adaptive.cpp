// SPDX-License-Identifier: Apache-2.0
#include "cpu/adaptive.h"

#include <pybind11/pybind11.h>

#include <algorithm>

#include "bindings/adaptive_model.h"
#include "bindings/python_poll.h"

namespace otcuda {

void bind_adaptive(pybind11::module_& m) {
  namespace py = pybind11;
  m.def(
      "adaptive_learn",
      [](const TensorView& map, const py::tuple& state, const TensorView& counters,
         const TensorView& weights) {
        check_map(map);
        cpu::AdaptiveModel model = adaptive_model(state);
        check_output("counters", counters, DType::u16, {int64_t(model.counters.size())});
        check_output("weights", weights, DType::i32, {int64_t(model.weights.size())});
        const py::none nobody;
        Poll poll = python_poll(nobody);
        const py::gil_scoped_release unlocked;
        cpu::adaptive_learn(model, map, poll);
        std::copy(model.counters.begin(), model.counters.end(), counters.write<uint16_t>());
        std::copy(model.weights.begin(), model.weights.end(), weights.write<int32_t>());
      },
      py::arg("symbols"), py::arg("model"), py::arg("counters"), py::arg("weights"),
      "symbols [h, w] uint16, model -> counters, weights. Contract: csrc/common/adaptive.h.");
}

}  // namespace otcuda
