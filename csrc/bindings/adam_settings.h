// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "common/check.h"
#include "common/heights_adam_step.h"

namespace otcuda {

inline void check_adam(const AdamSettings& adam) {
  OTCUDA_CHECK(std::isfinite(adam.lr), "lr is not finite");
  OTCUDA_CHECK(adam.beta1 >= 0.0 && adam.beta1 < 1.0, "betas[0] is outside [0, 1)");
  OTCUDA_CHECK(adam.beta2 >= 0.0 && adam.beta2 < 1.0, "betas[1] is outside [0, 1)");
  OTCUDA_CHECK(std::isfinite(adam.eps) && adam.eps > 0.0, "eps is not a positive number");
}

}  // namespace otcuda
