// SPDX-License-Identifier: Apache-2.0
#include "cpu/source_samples.h"

#include <pybind11/pybind11.h>

#include <string>

#include "bindings/cuda_call.h"
#include "bindings/source_kind.h"
#include "bindings/tensor_caster.h"
#include "common/backend_info.h"
#include "common/check.h"
#include "cuda/source_samples.h"

namespace otcuda {

void bind_source_samples(pybind11::module_& m) {
  m.def(
      "source_samples",
      [](const TensorView& out, const std::string& source, uint64_t seed, uint64_t stream,
         uint64_t offset) {
        const DType dtype = out.dtype == DType::f64 ? DType::f64 : DType::f32;
        check_output("out", out, dtype, {any, any});
        check_on_cpu("source_samples", "out", out);
        const cpu::SampleSequence sequence{source_kind(source), seed, stream};
        const uint64_t first = offset * uint64_t(out.shape[1]);
        const pybind11::gil_scoped_release unlocked;
        if (dtype == DType::f32) {
          cpu::source_samples(sequence, first, out.size(), out.write<float>());
        } else {
          cpu::source_samples(sequence, first, out.size(), out.write<double>());
        }
      },
      pybind11::arg("out"), pybind11::arg("source"), pybind11::arg("seed"), pybind11::arg("stream"),
      pybind11::arg("offset"), "-> out [B, D]. Contract: csrc/common/source_samples.h.");
  m.def(
      "source_samples",
      [](const TensorView& out, const std::string& source, uint64_t seed, uint64_t stream,
         uint64_t offset, uintptr_t cuda_stream) {
        check_output("out", out, out.dtype == DType::f64 ? DType::f64 : DType::f32, {any, any});
        check_on_cuda("source_samples", "out", out);
        const cuda::SampleSequence sequence{source_kind(source), seed, stream, offset};
        count_backend_path(BackendPath::source_samples_cuda, out.size());
        const pybind11::gil_scoped_release unlocked;
        cuda::source_samples(sequence, out, cuda_stream);
      },
      pybind11::arg("out"), pybind11::arg("source"), pybind11::arg("seed"), pybind11::arg("stream"),
      pybind11::arg("offset"), pybind11::arg("cuda_stream"), "The same on a CUDA stream.");
}

}  // namespace otcuda
