// SPDX-License-Identifier: Apache-2.0
#include "cpu/power_index.h"

#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "bindings/python_poll.h"
#include "bindings/tensor_caster.h"
#include "common/check.h"
#include "common/power_topk.h"

namespace otcuda {
namespace {

cpu::IndexMethod index_method(const std::string& name) {
  if (name == "auto") return cpu::IndexMethod::automatic;
  if (name == "brute") return cpu::IndexMethod::brute;
  if (name == "screen") return cpu::IndexMethod::screen;
  OTCUDA_CHECK(name == "tree", "method is '" + name + "', expected auto, brute, screen or tree");
  return cpu::IndexMethod::tree;
}

template <class T>
void bind_power_index_of(pybind11::module_& m, const char* name, DType dtype) {
  using Index = cpu::PowerIndex<T>;
  pybind11::class_<Index>(m, name, "Contract: csrc/common/power_index.h.")
      .def(pybind11::init([dtype](const TensorView& y, bool tree) {
             check_tensor("y", y, dtype, {any, any});
             check_on_cpu("PowerIndex", "y", y);
             OTCUDA_CHECK(y.shape[0] >= 1, "y holds no target, expected at least one");
             Poll poll = python_poll();
             const pybind11::gil_scoped_release unlocked;
             return std::make_unique<Index>(y.read<T>(), y.shape[0], y.shape[1], tree, &poll);
           }),
           pybind11::arg("y"), pybind11::arg("tree"))
      .def_property_readonly("has_tree", &Index::has_tree)
      .def(
          "set_heights",
          [dtype](Index& index, const TensorView& h) {
            check_tensor("h", h, dtype, {index.N()});
            check_on_cpu("PowerIndex", "h", h);
            const pybind11::gil_scoped_release unlocked;
            index.set_heights(h.read<T>());
          },
          pybind11::arg("h"), "h [N].")
      .def(
          "screen_violations",
          [dtype](Index& index, const TensorView& x, double factor) {
            check_tensor("x", x, dtype, {any, index.D()});
            check_on_cpu("PowerIndex", "x", x);
            Poll poll = python_poll();
            const pybind11::gil_scoped_release unlocked;
            return index.screen_violations(x.read<T>(), x.shape[0], factor, &poll);
          },
          pybind11::arg("x"), pybind11::arg("factor"),
          "For tests: pairs that the bound with its error terms scaled leaves out wrongly; -1: no "
          "screen.")
      .def(
          "argmax",
          [dtype](Index& index, const TensorView& x, const TensorView& value,
                  const TensorView& winner, const std::string& method) {
            check_tensor("x", x, dtype, {any, index.D()});
            check_output("value", value, dtype, {x.shape[0]});
            check_output("index", winner, DType::i64, {x.shape[0]});
            check_on_cpu("PowerIndex", "x", x);
            check_on_cpu("PowerIndex", "value", value);
            check_on_cpu("PowerIndex", "index", winner);
            const cpu::IndexMethod how = index_method(method);
            Poll poll = python_poll();
            const pybind11::gil_scoped_release unlocked;
            index.argmax(x.read<T>(), x.shape[0], value.write<T>(), winner.write<int64_t>(), how,
                         &poll);
          },
          pybind11::arg("x"), pybind11::arg("value"), pybind11::arg("index"),
          pybind11::arg("method"), "x [B, D] -> value [B], index [B].")
      .def(
          "topk",
          [dtype](Index& index, const TensorView& x, const TensorView& value,
                  const TensorView& place, const std::string& method) {
            check_tensor("x", x, dtype, {any, index.D()});
            check_output("value", value, dtype, {x.shape[0], any});
            const int64_t k = value.shape[1];
            OTCUDA_CHECK(k >= 1 && k <= kMostTopk,
                         "k is " + std::to_string(k) + ", expected 1 to 64");
            check_output("index", place, DType::i64, {x.shape[0], k});
            for (const TensorView* view : {&x, &value, &place}) {
              check_on_cpu("PowerIndex", "an argument", *view);
            }
            const cpu::IndexMethod how = index_method(method);
            Poll poll = python_poll();
            const pybind11::gil_scoped_release unlocked;
            index.topk(x.read<T>(), x.shape[0], int(k), value.write<T>(), place.write<int64_t>(),
                       how, &poll);
          },
          pybind11::arg("x"), pybind11::arg("value"), pybind11::arg("index"),
          pybind11::arg("method"), "x [B, D] -> value, index [B, k].")
      .def(
          "argmax_gap",
          [dtype](Index& index, const TensorView& x, const TensorView& value,
                  const TensorView& winner, const TensorView& gap, const std::string& method) {
            check_tensor("x", x, dtype, {any, index.D()});
            check_output("value", value, dtype, {x.shape[0]});
            check_output("index", winner, DType::i64, {x.shape[0]});
            check_output("gap", gap, dtype, {x.shape[0]});
            for (const TensorView* view : {&x, &value, &winner, &gap}) {
              check_on_cpu("PowerIndex", "an argument", *view);
            }
            const cpu::IndexMethod how = index_method(method);
            Poll poll = python_poll();
            const pybind11::gil_scoped_release unlocked;
            index.argmax_gap(x.read<T>(), x.shape[0], value.write<T>(), winner.write<int64_t>(),
                             gap.write<T>(), how, &poll);
          },
          pybind11::arg("x"), pybind11::arg("value"), pybind11::arg("index"), pybind11::arg("gap"),
          pybind11::arg("method"), "x [B, D] -> value, index, gap [B].")
      .def(
          "targets",
          [dtype](const Index& index, const TensorView& which, const TensorView& out) {
            check_tensor("index", which, DType::i64, {any});
            check_output("out", out, dtype, {which.shape[0], index.D()});
            check_on_cpu("PowerIndex", "index", which);
            check_on_cpu("PowerIndex", "out", out);
            const pybind11::gil_scoped_release unlocked;
            index.targets(which.read<int64_t>(), which.shape[0], out.write<T>());
          },
          pybind11::arg("index"), pybind11::arg("out"), "index [M] -> out [M, D]; zeros for -1.");
}

}  // namespace

void bind_power_index(pybind11::module_& m) {
  bind_power_index_of<float>(m, "PowerIndexF32", DType::f32);
  bind_power_index_of<double>(m, "PowerIndexF64", DType::f64);
}

}  // namespace otcuda
