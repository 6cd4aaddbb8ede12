// SPDX-License-Identifier: Apache-2.0
#include "cpu/sobol_samples.h"

#include <pybind11/pybind11.h>

#include <string>

#include "bindings/source_kind.h"
#include "bindings/tensor_caster.h"
#include "common/check.h"

namespace otcuda {

void bind_sobol_samples(pybind11::module_& m) {
  m.attr("SOBOL_DIMENSIONS") = kSobolDimensions;
  m.def(
      "sobol_samples",
      [](const TensorView& out, const std::string& source, uint64_t seed, uint64_t stream,
         uint64_t offset) {
        check_output("out", out, DType::f32, {any, any});
        check_on_cpu("sobol_samples", "out", out);
        const int64_t B = out.shape[0], D = out.shape[1];
        OTCUDA_CHECK(D <= kSobolDimensions, "out has " + std::to_string(D) + " columns, expected " +
                                                std::to_string(kSobolDimensions) + " at most");
        constexpr uint64_t kPoints = uint64_t(1) << kSobolBits;
        OTCUDA_CHECK(uint64_t(B) <= kPoints && offset <= kPoints - uint64_t(B),
                     "offset is " + std::to_string(offset) + ", expected offset + B <= 2^32");
        const pybind11::gil_scoped_release unlocked;
        cpu::sobol_samples({source_kind(source), seed, stream}, offset, B, D, out.write<float>());
      },
      pybind11::arg("out"), pybind11::arg("source"), pybind11::arg("seed"), pybind11::arg("stream"),
      pybind11::arg("offset"), "-> out [B, D]. Contract: csrc/common/sobol_samples.h.");
}

}  // namespace otcuda
