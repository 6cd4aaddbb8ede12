// SPDX-License-Identifier: Apache-2.0
// A Poll that hears Ctrl-C and calls a Python callback with the progress in [0, 1].
#pragma once

#include <pybind11/pybind11.h>

#include "common/poll.h"

namespace otcuda {

// Ctrl-C alone.
inline Poll python_poll() {
  return Poll([](double) {
    const pybind11::gil_scoped_acquire locked;
    if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
    return true;
  });
}

// `callback` is None or callable(progress); returning False stops the loop. It must outlive the
// Poll.
inline Poll python_poll(const pybind11::object& callback) {
  return Poll([&callback](double progress) {
    const pybind11::gil_scoped_acquire locked;
    if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
    if (callback.is_none()) return true;
    const pybind11::object answer = callback(progress);
    return answer.is_none() || answer.cast<bool>();
  });
}

}  // namespace otcuda
