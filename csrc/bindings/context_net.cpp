// SPDX-License-Identifier: Apache-2.0
#include "cpu/context_net.h"

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
using cpu::ContextNet;

// Weights by name, as they stand in a weights file.
std::unique_ptr<ContextNet> load_context_net(const py::dict& arrays) {
  std::vector<std::unique_ptr<py::detail::make_caster<TensorView>>> held;
  return std::make_unique<ContextNet>([&](const std::string& name) {
    const py::str key(name);
    OTCUDA_CHECK(arrays.contains(key), "the context model has no array " + name);
    held.push_back(std::make_unique<py::detail::make_caster<TensorView>>());
    OTCUDA_CHECK(held.back()->load(arrays[key], false), name + " is no array of plain numbers");
    const TensorView view = py::detail::cast_op<TensorView&>(*held.back());
    check_on_cpu("context_net", name.c_str(), view);
    return view;
  });
}

// The picture that latents or symbols [M, h, w] of a call stand for; `off` is None or uint8 [M].
cpu::ContextPicture context_picture(const ContextNet& net, const char* name,
                                    const TensorView& planes, DType dtype, int k,
                                    const TensorView* off) {
  const int64_t M = net.sizes.M();
  check_tensor(name, planes, dtype, {M, any, any});
  check_on_cpu("context_net", name, planes);
  if (off != nullptr) {
    check_tensor("off", *off, DType::u8, {M});
    check_on_cpu("context_net", "off", *off);
  }
  const uint8_t* mask = off != nullptr ? off->read<uint8_t>() : nullptr;
  return {planes.shape[1], planes.shape[2], k, mask};
}

template <class T>
T* context_output(const char* name, const TensorView& view, DType dtype, const ContextNet& net,
                  const cpu::ContextPicture& picture) {
  check_output(name, view, dtype, {net.sizes.M(), picture.h, picture.w});
  check_on_cpu("context_net", name, view);
  return view.write<T>();
}

// None or an array: a caster of its own, since an optional argument must not copy the view's owner.
class ContextHeldView {
 public:
  ContextHeldView(const char* name, const py::object& object) {
    if (object.is_none()) return;
    if (!caster_.load(object, false)) {
      throw ArgumentError(std::string(name) + " is neither None nor an array");
    }
    view_ = &py::detail::cast_op<TensorView&>(caster_);
  }
  const TensorView* view() const { return view_; }

 private:
  py::detail::make_caster<TensorView> caster_;
  const TensorView* view_ = nullptr;
};

double bound_context_quantise(const ContextNet& net, const TensorView& u, int k,
                              const py::object& off, bool conditional, double multiplier,
                              const py::tuple& outputs, const py::object& callback) {
  const ContextHeldView mask("off", off);
  const cpu::ContextPicture picture = context_picture(net, "u", u, DType::f32, k, mask.view());
  OTCUDA_CHECK(outputs.size() == 3, "outputs is not (symbols, values, scale_index)");
  const ContextHeldView symbols("symbols", outputs[0]), values("values", outputs[1]),
      scales("scale_index", outputs[2]);
  OTCUDA_CHECK(symbols.view() && values.view() && scales.view(), "outputs holds None");
  const cpu::ContextChoice choice = {
      context_output<int16_t>("symbols", *symbols.view(), DType::i16, net, picture),
      context_output<int16_t>("values", *values.view(), DType::i16, net, picture),
      context_output<uint8_t>("scale_index", *scales.view(), DType::u8, net, picture)};
  Poll poll = python_poll(callback);
  const py::gil_scoped_release unlocked;
  return cpu::context_quantise(net, picture, u.read<float>(), conditional, multiplier, choice,
                               poll);
}

double bound_context_measure(const ContextNet& net, const TensorView& symbols, int k,
                             const py::object& off, const TensorView& values,
                             const TensorView& scale_index, const py::object& callback) {
  const ContextHeldView mask("off", off);
  const cpu::ContextPicture picture =
      context_picture(net, "symbols", symbols, DType::i16, k, mask.view());
  int16_t* into = context_output<int16_t>("values", values, DType::i16, net, picture);
  uint8_t* scales = context_output<uint8_t>("scale_index", scale_index, DType::u8, net, picture);
  Poll poll = python_poll(callback);
  const py::gil_scoped_release unlocked;
  return cpu::context_measure(net, picture, symbols.read<int16_t>(), into, scales, poll);
}

py::bytes bound_context_encode(const ContextNet& net, const TensorView& symbols, int k,
                               const py::object& off, const py::object& callback) {
  const ContextHeldView mask("off", off);
  const cpu::ContextPicture picture =
      context_picture(net, "symbols", symbols, DType::i16, k, mask.view());
  Poll poll = python_poll(callback);
  Vector<uint8_t> payload;
  {
    const py::gil_scoped_release unlocked;
    payload = cpu::context_encode(net, picture, symbols.read<int16_t>(), poll);
  }
  return py::bytes(reinterpret_cast<const char*>(payload.data()), payload.size());
}

void bound_context_decode(const ContextNet& net, const TensorView& payload, int k,
                          const py::object& off, const TensorView& symbols,
                          const TensorView& values, const py::object& callback) {
  const ContextHeldView mask("off", off);
  check_tensor("payload", payload, DType::u8, {any});
  check_on_cpu("context_net", "payload", payload);
  const cpu::ContextPicture picture =
      context_picture(net, "symbols", symbols, DType::i16, k, mask.view());
  int16_t* into = context_output<int16_t>("symbols", symbols, DType::i16, net, picture);
  int16_t* and_into = context_output<int16_t>("values", values, DType::i16, net, picture);
  Poll poll = python_poll(callback);
  const py::gil_scoped_release unlocked;
  cpu::context_decode(net, picture, payload.read<uint8_t>(), payload.shape[0], into, and_into,
                      poll);
}

}  // namespace

void bind_context_net(py::module_& m) {
  py::class_<ContextNet>(m, "ContextNet", "Weights of csrc/common/context_net.h, checked.")
      .def(py::init(&load_context_net), py::arg("arrays"))
      .def_property_readonly("channels", [](const ContextNet& net) { return net.sizes.M(); })
      .def("quantise", &bound_context_quantise, py::arg("u"), py::arg("k"), py::arg("off"),
           py::arg("conditional"), py::arg("multiplier"), py::arg("outputs"), py::arg("poll"),
           "u [M, h, w] float32 -> (symbols, values, scale_index) [M, h, w]; the bits.")
      .def("measure", &bound_context_measure, py::arg("symbols"), py::arg("k"), py::arg("off"),
           py::arg("values"), py::arg("scale_index"), py::arg("poll"),
           "symbols [M, h, w] int16 -> values, scale_index [M, h, w]; the bits.")
      .def("encode", &bound_context_encode, py::arg("symbols"), py::arg("k"), py::arg("off"),
           py::arg("poll"), "symbols [M, h, w] int16 -> bytes.")
      .def("decode", &bound_context_decode, py::arg("payload"), py::arg("k"), py::arg("off"),
           py::arg("symbols"), py::arg("values"), py::arg("poll"),
           "payload [n] uint8 -> symbols, values [M, h, w] int16.");
}

}  // namespace otcuda
