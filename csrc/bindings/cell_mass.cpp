// SPDX-License-Identifier: Apache-2.0
#include "cpu/cell_mass.h"

#include <pybind11/pybind11.h>

#include "bindings/cuda_call.h"
#include "bindings/tensor_caster.h"
#include "common/backend_info.h"
#include "common/check.h"
#include "cuda/cell_mass.h"

namespace otcuda {
namespace {

void check_counts(const TensorView& index, const TensorView& mass) {
  check_tensor("index", index, DType::i64, {any});
  check_output("mass", mass, DType::i64, {any});
  OTCUDA_CHECK(mass.shape[0] >= 1, "N is 0, expected at least one cell");
  check_same_device("mass", mass, "index", index);
}

void check_sums(const TensorView& index, const TensorView& weights, const TensorView& mass) {
  OTCUDA_CHECK(
      weights.dtype == DType::f32 || weights.dtype == DType::f64,
      std::string("weights is ") + dtype_name(weights.dtype) + ", expected float32 or float64");
  check_tensor("index", index, DType::i64, {any});
  check_tensor("weights", weights, weights.dtype, {index.shape[0]});
  check_output("mass", mass, weights.dtype, {any});
  OTCUDA_CHECK(mass.shape[0] >= 1, "N is 0, expected at least one cell");
  check_same_device("weights", weights, "index", index);
  check_same_device("mass", mass, "index", index);
}

void bind_cell_mass_on_cuda(pybind11::module_& m) {
  m.def(
      "cell_mass",
      [](const TensorView& index, const TensorView& mass, const TensorView& workspace,
         uintptr_t stream) {
        check_counts(index, mass);
        check_on_cuda("cell_mass", "index", index);
        check_workspace(workspace, index);
        count_backend_path(BackendPath::cell_mass_cuda, index.shape[0]);
        const pybind11::gil_scoped_release unlocked;
        cuda::cell_mass_counts(index, mass, workspace, stream);
      },
      pybind11::arg("index"), pybind11::arg("mass"), pybind11::arg("workspace"),
      pybind11::arg("stream"),
      "The same on a CUDA stream. The first 16 bytes of the workspace then tell the first stray "
      "sample and the first of infinite weight, int64, -1 for none.");
  m.def(
      "cell_mass",
      [](const TensorView& index, const TensorView& weights, const TensorView& mass,
         const TensorView& workspace, uintptr_t stream) {
        check_sums(index, weights, mass);
        check_on_cuda("cell_mass", "index", index);
        check_workspace(workspace, index);
        count_backend_path(BackendPath::cell_mass_cuda, index.shape[0]);
        const pybind11::gil_scoped_release unlocked;
        cuda::cell_mass_sums(index, weights, mass, workspace, stream);
      },
      pybind11::arg("index"), pybind11::arg("weights"), pybind11::arg("mass"),
      pybind11::arg("workspace"), pybind11::arg("stream"), "The same on a CUDA stream.");
  m.def("cell_mass_workspace", &cuda::cell_mass_workspace, pybind11::arg("N"),
        pybind11::arg("weighted"), "Bytes of workspace on the device.");
}

}  // namespace

void bind_cell_mass(pybind11::module_& m) {
  m.def(
      "cell_mass",
      [](const TensorView& index, const TensorView& mass) {
        check_counts(index, mass);
        check_on_cpu("cell_mass", "index", index);
        const pybind11::gil_scoped_release unlocked;
        cpu::cell_mass_counts(index.read<int64_t>(), index.shape[0], mass.shape[0],
                              mass.write<int64_t>());
      },
      pybind11::arg("index"), pybind11::arg("mass"),
      "index [B] int64 -> mass [N] int64. Contract: csrc/common/cell_mass.h.");
  m.def(
      "cell_mass",
      [](const TensorView& index, const TensorView& weights, const TensorView& mass) {
        check_sums(index, weights, mass);
        check_on_cpu("cell_mass", "index", index);
        const pybind11::gil_scoped_release unlocked;
        cpu::cell_mass_sums(index, weights, mass);
      },
      pybind11::arg("index"), pybind11::arg("weights"), pybind11::arg("mass"),
      "index [B] int64, weights [B] -> mass [N]. Contract: csrc/common/cell_mass.h.");
  bind_cell_mass_on_cuda(m);
}

}  // namespace otcuda
