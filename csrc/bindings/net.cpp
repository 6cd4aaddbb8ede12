// SPDX-License-Identifier: Apache-2.0
#include "cpu/net.h"

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "bindings/python_poll.h"
#include "bindings/tensor_caster.h"
#include "common/check.h"

namespace otcuda {
namespace {

namespace py = pybind11;

constexpr int64_t kMostPositions = int64_t(1) << 26;  // of a grid of latents

// Weights by name, as they stand in a weights file, in float32.
template <class Net>
std::unique_ptr<Net> load_net(const py::dict& arrays) {
  std::vector<std::unique_ptr<py::detail::make_caster<TensorView>>> held;
  const cpu::NetArrays named = {
      [&](const std::string& name) { return arrays.contains(py::str(name)); },
      [&](const std::string& name) {
        const py::str key(name);
        OTCUDA_CHECK(arrays.contains(key), "the network has no array " + name);
        held.push_back(std::make_unique<py::detail::make_caster<TensorView>>());
        OTCUDA_CHECK(held.back()->load(arrays[key], false), name + " is no array of plain numbers");
        const TensorView view = py::detail::cast_op<TensorView&>(*held.back());
        check_on_cpu("net", name.c_str(), view);
        return view;
      }};
  return std::make_unique<Net>(named);
}

int64_t net_grid(int64_t pixels) { return (pixels + kNetAlign - 1) / kNetAlign * 4; }

void bound_analysis(const cpu::NetAnalysis& net, const TensorView& rgb, const TensorView& latents,
                    const py::object& callback) {
  check_tensor("rgb", rgb, DType::u8, {any, any, 3});
  check_on_cpu("net", "rgb", rgb);
  const int64_t height = rgb.shape[0], width = rgb.shape[1];
  OTCUDA_CHECK(height >= 1 && width >= 1, "rgb holds no pixel");
  OTCUDA_CHECK(net_grid(height) <= kMostPositions / net_grid(width),
               "rgb is " + shape_text(rgb) + ", expected at most 2^26 positions of 16 x 16 pixels");
  check_output("latents", latents, DType::f32, {net.channels(), net_grid(height), net_grid(width)});
  check_on_cpu("net", "latents", latents);
  Poll poll = python_poll(callback);
  const py::gil_scoped_release unlocked;
  net.run(rgb.read<uint8_t>(), height, width, latents.write<float>(), poll);
}

cpu::NetLatents net_latents(const cpu::NetSynthesis& net, const TensorView& latents, float t) {
  check_tensor("latents", latents, DType::f32, {net.channels(), any, any});
  check_on_cpu("net", "latents", latents);
  const int64_t h = latents.shape[1], w = latents.shape[2];
  OTCUDA_CHECK(h >= 4 && w >= 4 && h % 4 == 0 && w % 4 == 0 && h <= kMostPositions / w,
               "latents is " + shape_text(latents) +
                   ", expected a grid of 4 n x 4 m and at most 2^26 positions");
  return {latents.read<float>(), h, w, t};
}

float* net_planes(const cpu::NetLatents& latents, const TensorView& planes) {
  check_output("planes", planes, DType::f32, {3, latents.h * kNetStride, latents.w * kNetStride});
  check_on_cpu("net", "planes", planes);
  return planes.write<float>();
}

void bound_synthesis(const cpu::NetSynthesis& net, const TensorView& latents, float t,
                     const TensorView& planes, const py::object& callback) {
  const cpu::NetLatents given = net_latents(net, latents, t);
  float* out = net_planes(given, planes);
  Poll poll = python_poll(callback);
  const py::gil_scoped_release unlocked;
  net.run(given, nullptr, out, poll);
}

void bound_perception(const cpu::NetSynthesis& net, const TensorView& latents, float t,
                      const cpu::NetHead& head, const TensorView& coarse, const TensorView& fine,
                      float realism, const TensorView& planes, const py::object& callback) {
  const cpu::NetLatents given = net_latents(net, latents, t);
  float* out = net_planes(given, planes);
  const int64_t n = head.inputs() - net.features();
  OTCUDA_CHECK(n >= 0, "the head takes " + std::to_string(head.inputs()) +
                           " channels, expected at least the " + std::to_string(net.features()) +
                           " of the synthesis");
  check_tensor("coarse", coarse, DType::f32, {n, 2 * given.h, 2 * given.w});
  check_on_cpu("net", "coarse", coarse);
  check_tensor("fine", fine, DType::f32,
               {head.fine_noise(), given.h * kNetStride, given.w * kNetStride});
  check_on_cpu("net", "fine", fine);
  OTCUDA_CHECK(realism >= 0.0f && realism <= 1.0f,
               "realism is " + std::to_string(realism) + ", expected 0 to 1");
  const cpu::NetPerception perception = {&head, coarse.read<float>(), fine.read<float>(), realism};
  Poll poll = python_poll(callback);
  const py::gil_scoped_release unlocked;
  net.run(given, &perception, out, poll);
}

void bound_picture(const TensorView& planes, int64_t top, int64_t left, bool grey,
                   const TensorView& out, const py::object& callback) {
  check_tensor("planes", planes, DType::f32, {3, any, any});
  check_on_cpu("net", "planes", planes);
  check_output("out", out, DType::u8, {any, any, 3});
  check_on_cpu("net", "out", out);
  const int64_t h = planes.shape[1], w = planes.shape[2];
  const int64_t height = out.shape[0], width = out.shape[1];
  OTCUDA_CHECK(top >= 0 && left >= 0 && top <= h - height && left <= w - width,
               "out is " + shape_text(out) + " at (" + std::to_string(top) + ", " +
                   std::to_string(left) + "), expected to lie within planes " + shape_text(planes));
  Poll poll = python_poll(callback);
  const py::gil_scoped_release unlocked;
  cpu::net_picture({h, w, top, left, height, width, grey}, planes.read<float>(),
                   out.write<uint8_t>(), poll);
}

}  // namespace

void bind_net(py::module_& m) {
  py::class_<cpu::NetAnalysis>(m, "NetAnalysis", "Weights of the analysis, checked and packed.")
      .def(py::init(&load_net<cpu::NetAnalysis>), py::arg("arrays"))
      .def_property_readonly("channels", &cpu::NetAnalysis::channels)
      .def("run", &bound_analysis, py::arg("rgb"), py::arg("latents"), py::arg("poll"),
           "rgb [H, W, 3] uint8 -> latents [M, h, w] float32. Contract: csrc/common/net.h.");
  py::class_<cpu::NetHead>(m, "NetHead", "Weights of the perceptual head, checked and packed.")
      .def(py::init(&load_net<cpu::NetHead>), py::arg("arrays"))
      .def_property_readonly("inputs", &cpu::NetHead::inputs)
      .def_property_readonly("fine_noise", &cpu::NetHead::fine_noise)
      .def_property_readonly("layers", &cpu::NetHead::layers);
  py::class_<cpu::NetSynthesis>(m, "NetSynthesis", "Weights of the synthesis, checked and packed.")
      .def(py::init(&load_net<cpu::NetSynthesis>), py::arg("arrays"))
      .def_property_readonly("channels", &cpu::NetSynthesis::channels)
      .def_property_readonly("features", &cpu::NetSynthesis::features)
      .def("run", &bound_synthesis, py::arg("latents"), py::arg("t"), py::arg("planes"),
           py::arg("poll"),
           "latents [M, h, w] float32 -> planes [3, 16 h, 16 w] float32 in units of 64.")
      .def("run_with_head", &bound_perception, py::arg("latents"), py::arg("t"), py::arg("head"),
           py::arg("coarse"), py::arg("fine"), py::arg("realism"), py::arg("planes"),
           py::arg("poll"), "The same blended with the head's picture, on two kinds of noise.");
  m.def("net_picture", &bound_picture, py::arg("planes"), py::arg("top"), py::arg("left"),
        py::arg("grey"), py::arg("out"), py::arg("poll"),
        "planes [3, h, w] float32 in units of 64 -> out [H, W, 3] uint8, cut out at (top, left).");
}

}  // namespace otcuda
