// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/check.h"
#include "common/source_samples.h"

namespace otcuda {

inline SourceKind source_kind(const std::string& name) {
  if (name == "normal") return SourceKind::normal;
  if (name == "uniform") return SourceKind::uniform;
  OTCUDA_CHECK(name == "gaussian_cdf",
               "source is '" + name + "', expected normal, uniform or gaussian_cdf");
  return SourceKind::gaussian_cdf;
}

}  // namespace otcuda
