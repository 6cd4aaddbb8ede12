// SPDX-License-Identifier: Apache-2.0
// What every CUDA overload of a binding checks: tensors on one device, and a workspace there.
#pragma once

#include <string>

#include "common/check.h"

namespace otcuda {

inline void check_on_cuda(const char* op, const char* name, const TensorView& view) {
  if (view.device != Device::cuda) {
    throw DeviceError(std::string(op) + ": " + name +
                      " lies in host memory, but a CUDA stream was given with it");
  }
}

inline void check_workspace(const TensorView& workspace, const TensorView& first) {
  check_output("workspace", workspace, DType::u8, {any});
  check_same_device("workspace", workspace, "the first argument", first);
}

}  // namespace otcuda
