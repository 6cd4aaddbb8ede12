// SPDX-License-Identifier: Apache-2.0
// The module otcuda._C: one bind_<op>() a line, the switches of the core, and C++ exceptions as
// otcuda.errors.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "common/alloc.h"
#include "common/backend_info.h"
#include "common/check.h"
#include "common/simd.h"
#include "common/threads.h"
#include "cpu/fma_peak.h"

namespace otcuda {

void bind_cell_mass(pybind11::module_& m);
void bind_heights_adam_solve(pybind11::module_& m);
void bind_heights_adam_step(pybind11::module_& m);
void bind_heights_asgd_solve(pybind11::module_& m);
void bind_list_newton(pybind11::module_& m);
void bind_planar_newton(pybind11::module_& m);
void bind_power_argmax(pybind11::module_& m);
void bind_power_topk(pybind11::module_& m);
void bind_power_index(pybind11::module_& m);
void bind_context_net(pybind11::module_& m);
void bind_net(pybind11::module_& m);
void bind_range64(pybind11::module_& m);
void bind_adaptive(pybind11::module_& m);
void bind_causal_prior(pybind11::module_& m);
void bind_compat64(pybind11::module_& m);
void bind_rans32(pybind11::module_& m);
void bind_tables(pybind11::module_& m);
void bind_sobol_samples(pybind11::module_& m);
void bind_source_samples(pybind11::module_& m);
void bind_top_cells(pybind11::module_& m);

namespace {

namespace py = pybind11;

void set_python_error(const char* type, const std::exception& error) {
  py::set_error(py::module_::import("otcuda.errors").attr(type), error.what());
}

void translate(std::exception_ptr pointer) {
  if (!pointer) return;
  try {
    std::rethrow_exception(pointer);
  } catch (const ShapeError& error) {
    set_python_error("ShapeError", error);
  } catch (const ArgumentError& error) {
    set_python_error("ArgumentError", error);
  } catch (const DeviceError& error) {
    set_python_error("DeviceError", error);
  } catch (const BackendError& error) {
    set_python_error("BackendError", error);
  } catch (const CorruptDataError& error) {
    set_python_error("CorruptDataError", error);
  } catch (const ModelMismatchError& error) {
    set_python_error("ModelMismatchError", error);
  } catch (const BudgetError& error) {
    set_python_error("BudgetError", error);
  } catch (const LimitError& error) {
    set_python_error("LimitError", error);
  } catch (const Interrupted& error) {
    set_python_error("Interrupted", error);
  } catch (const Error& error) {
    set_python_error("Error", error);
  }
}

void bind_switches(py::module_& m) {
  m.def("simd_level", [] { return std::string(simd_level_name(simd_level())); });
  m.def("simd_vnni", &simd_vnni);
  m.def("simd_levels", [] {
    std::vector<std::string> names;
    for (const SimdLevel level : simd_levels()) names.emplace_back(simd_level_name(level));
    return names;
  });
  m.def("set_simd_level", &set_simd_level, py::arg("level"));
  m.def("num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads, py::arg("n"));
  m.def("set_host_num_threads", &set_host_num_threads, py::arg("n"));
  m.def("fma_peak", &cpu::fma_peak, py::arg("seconds"), py::call_guard<py::gil_scoped_release>());
  m.def("memory_limit", &memory_limit);
  m.def("set_memory_limit", &set_memory_limit, py::arg("bytes"));
  m.def("memory_in_use", &memory_in_use);
  m.def("memory_peak", &memory_peak);
  m.def("reset_memory_peak", &reset_memory_peak);
  m.def("allocation_count", &allocation_count);
  m.def("fail_allocation", &fail_allocation, py::arg("k"));
}

py::dict backend_paths() {
  py::dict paths;
  for (int k = 0; k < static_cast<int>(BackendPath::count); ++k) {
    const auto path = static_cast<BackendPath>(k);
    if (backend_path_calls(path) == 0) continue;
    py::dict row;
    row["calls"] = backend_path_calls(path);
    row["items"] = backend_path_items(path);
    paths[backend_path_name(path)] = row;
  }
  return paths;
}

py::dict build_options() {
  py::dict options;
  options["cuda"] = bool(OTCUDA_HAVE_CUDA);
  options["cuda_absent_reason"] = OTCUDA_CUDA_ABSENT_REASON;
  options["compiler"] = __VERSION__;
  return options;
}

}  // namespace
}  // namespace otcuda

PYBIND11_MODULE(_C, m, pybind11::mod_gil_not_used()) {
  m.doc() = "The native core of otcuda; used through otcuda._ops only.";
  pybind11::register_exception_translator(&otcuda::translate);
  otcuda::bind_switches(m);
  m.def("backend_paths", &otcuda::backend_paths);
  m.def("reset_backend_paths", &otcuda::reset_backend_paths);
  m.def("build_options", &otcuda::build_options);
  otcuda::bind_cell_mass(m);
  otcuda::bind_heights_adam_solve(m);
  otcuda::bind_heights_adam_step(m);
  otcuda::bind_heights_asgd_solve(m);
  otcuda::bind_list_newton(m);
  otcuda::bind_planar_newton(m);
  otcuda::bind_power_argmax(m);
  otcuda::bind_power_index(m);
  otcuda::bind_power_topk(m);
  otcuda::bind_context_net(m);
  otcuda::bind_conv3(m);
  otcuda::bind_net(m);
  otcuda::bind_tables(m);
  otcuda::bind_causal_prior(m);  // before range64, whose signatures name its class
  otcuda::bind_range64(m);
  otcuda::bind_adaptive(m);
  otcuda::bind_compat64(m);
  otcuda::bind_rans32(m);
  otcuda::bind_sobol_samples(m);
  otcuda::bind_source_samples(m);
  otcuda::bind_top_cells(m);
}
