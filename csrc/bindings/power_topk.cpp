// SPDX-License-Identifier: Apache-2.0
#include "cpu/power_topk.h"

#include <pybind11/pybind11.h>

#include <string>

#include "bindings/cuda_call.h"
#include "bindings/python_poll.h"
#include "bindings/tensor_caster.h"
#include "common/backend_info.h"
#include "common/check.h"
#include "common/power_topk.h"
#include "cuda/power_topk.h"

namespace otcuda {
namespace {

template <class T>
void power_topk_on_cpu(const TensorView& x, const TensorView& y, const TensorView& h,
                       const TensorView& value, const TensorView& index) {
  Poll poll = python_poll();
  const pybind11::gil_scoped_release unlocked;
  cpu::power_topk(cpu::TopkProblem<T>{x.read<T>(), y.read<T>(), h.read<T>(), x.shape[0], x.shape[1],
                                      y.shape[1], x.shape[2], int(value.shape[2]), value.write<T>(),
                                      index.write<int64_t>()},
                  &poll);
}

template <class T>
void power_argmax_gap_on_cpu(const TensorView& x, const TensorView& y, const TensorView& h,
                             const TensorView& value, const TensorView& index,
                             const TensorView& gap) {
  Poll poll = python_poll();
  const pybind11::gil_scoped_release unlocked;
  cpu::power_argmax_gap(
      cpu::GapProblem<T>{x.read<T>(), y.read<T>(), h.read<T>(), x.shape[0], x.shape[1], y.shape[1],
                         x.shape[2], value.write<T>(), index.write<int64_t>(), gap.write<T>()},
      &poll);
}

// Problems in a row, x [G, B, D]; the dtype to work in.
DType check_problems(const char* op, const TensorView& x, const TensorView& y,
                     const TensorView& h) {
  const DType dtype = x.dtype == DType::f64 ? DType::f64 : DType::f32;
  check_tensor("x", x, dtype, {any, any, any});
  check_tensor("y", y, dtype, {x.shape[0], any, x.shape[2]});
  OTCUDA_CHECK(y.shape[1] >= 1, "y holds no target, expected at least one");
  check_tensor("h", h, dtype, {x.shape[0], y.shape[1]});
  check_on_cpu(op, "x", x);
  check_same_device("y", y, "x", x);
  check_same_device("h", h, "x", x);
  return dtype;
}

// One problem on a device, x [B, D]; the dtype to work in.
DType check_problem_on_cuda(const char* op, const TensorView& x, const TensorView& y,
                            const TensorView& h, const TensorView& workspace) {
  const DType dtype = x.dtype == DType::f64 ? DType::f64 : DType::f32;
  check_tensor("x", x, dtype, {any, any});
  check_tensor("y", y, dtype, {any, x.shape[1]});
  OTCUDA_CHECK(y.shape[0] >= 1, "y holds no target, expected at least one");
  check_tensor("h", h, dtype, {y.shape[0]});
  check_on_cuda(op, "x", x);
  check_same_device("y", y, "x", x);
  check_same_device("h", h, "x", x);
  check_workspace(workspace, x);
  return dtype;
}

void check_k(int64_t k) {
  OTCUDA_CHECK(k >= 1 && k <= kMostTopk, "k is " + std::to_string(k) + ", expected 1 to 64");
}

void bind_on_cuda(pybind11::module_& m) {
  m.def(
      "power_topk",
      [](const TensorView& x, const TensorView& y, const TensorView& h, const TensorView& value,
         const TensorView& index, const TensorView& workspace, uintptr_t stream) {
        const DType dtype = check_problem_on_cuda("power_topk", x, y, h, workspace);
        check_output("value", value, dtype, {x.shape[0], any});
        check_k(value.shape[1]);
        check_output("index", index, DType::i64, {x.shape[0], value.shape[1]});
        check_same_device("value", value, "x", x);
        check_same_device("index", index, "x", x);
        count_backend_path(BackendPath::power_topk_cuda, x.shape[0]);
        const pybind11::gil_scoped_release unlocked;
        cuda::power_topk(x, y, h, value, index, workspace, stream);
      },
      pybind11::arg("x"), pybind11::arg("y"), pybind11::arg("h"), pybind11::arg("value"),
      pybind11::arg("index"), pybind11::arg("workspace"), pybind11::arg("stream"),
      "x [B, D], y [N, D], h [N] -> value, index [B, k] on a CUDA stream; returns at once.");
  m.def(
      "power_argmax_gap",
      [](const TensorView& x, const TensorView& y, const TensorView& h, const TensorView& value,
         const TensorView& index, const TensorView& gap, const TensorView& workspace,
         uintptr_t stream) {
        const DType dtype = check_problem_on_cuda("power_argmax_gap", x, y, h, workspace);
        check_output("value", value, dtype, {x.shape[0]});
        check_output("index", index, DType::i64, {x.shape[0]});
        check_output("gap", gap, dtype, {x.shape[0]});
        for (const TensorView* view : {&value, &index, &gap}) {
          check_same_device("an output", *view, "x", x);
        }
        count_backend_path(BackendPath::power_topk_cuda, x.shape[0]);
        const pybind11::gil_scoped_release unlocked;
        cuda::power_argmax_gap(x, y, h, value, index, gap, workspace, stream);
      },
      pybind11::arg("x"), pybind11::arg("y"), pybind11::arg("h"), pybind11::arg("value"),
      pybind11::arg("index"), pybind11::arg("gap"), pybind11::arg("workspace"),
      pybind11::arg("stream"),
      "x [B, D], y [N, D], h [N] -> value, index, gap [B] on a CUDA stream; returns at once.");
  m.def(
      "power_topk_workspace",
      [](bool is_double, int64_t B, int64_t N, int64_t D) {
        return cuda::power_topk_workspace(is_double ? DType::f64 : DType::f32, B, N, D);
      },
      pybind11::arg("is_double"), pybind11::arg("B"), pybind11::arg("N"), pybind11::arg("D"),
      "Bytes of workspace on the device, of power_argmax_gap too.");
}

}  // namespace

void bind_power_topk(pybind11::module_& m) {
  m.def(
      "power_topk",
      [](const TensorView& x, const TensorView& y, const TensorView& h, const TensorView& value,
         const TensorView& index) {
        const DType dtype = check_problems("power_topk", x, y, h);
        const int64_t G = x.shape[0], B = x.shape[1];
        check_output("value", value, dtype, {G, B, any});
        const int64_t k = value.shape[2];
        check_k(k);
        check_output("index", index, DType::i64, {G, B, k});
        check_same_device("value", value, "x", x);
        check_same_device("index", index, "x", x);
        if (dtype == DType::f32) {
          power_topk_on_cpu<float>(x, y, h, value, index);
        } else {
          power_topk_on_cpu<double>(x, y, h, value, index);
        }
      },
      pybind11::arg("x"), pybind11::arg("y"), pybind11::arg("h"), pybind11::arg("value"),
      pybind11::arg("index"),
      "x [G, B, D], y [G, N, D], h [G, N] -> value, index [G, B, k]. Contract: "
      "csrc/common/power_topk.h.");
  m.def(
      "power_argmax_gap",
      [](const TensorView& x, const TensorView& y, const TensorView& h, const TensorView& value,
         const TensorView& index, const TensorView& gap) {
        const DType dtype = check_problems("power_argmax_gap", x, y, h);
        check_output("value", value, dtype, {x.shape[0], x.shape[1]});
        check_output("index", index, DType::i64, {x.shape[0], x.shape[1]});
        check_output("gap", gap, dtype, {x.shape[0], x.shape[1]});
        for (const TensorView* view : {&value, &index, &gap}) {
          check_same_device("an output", *view, "x", x);
        }
        if (dtype == DType::f32) {
          power_argmax_gap_on_cpu<float>(x, y, h, value, index, gap);
        } else {
          power_argmax_gap_on_cpu<double>(x, y, h, value, index, gap);
        }
      },
      pybind11::arg("x"), pybind11::arg("y"), pybind11::arg("h"), pybind11::arg("value"),
      pybind11::arg("index"), pybind11::arg("gap"),
      "The best of each sample and its gap: value, index, gap [G, B].");
  bind_on_cuda(m);
}

}  // namespace otcuda
