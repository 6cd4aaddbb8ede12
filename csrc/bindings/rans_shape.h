// SPDX-License-Identifier: Apache-2.0
// Sizes of tables as devices know them.
#pragma once

#include <algorithm>
#include <string>

#include "common/check.h"
#include "common/rans32_lookup.h"
#include "cpu/tables.h"

namespace otcuda {

inline void check_narrow(const char* what, const cpu::Tables& tables) {
  OTCUDA_CHECK(!tables.wide(), std::string(what) +
                                   " takes tables of precision 1 .. 16, these have " +
                                   std::to_string(tables.precision()));
}

inline RansShape shape_of(const cpu::Tables& tables) {
  check_narrow("a CUDA device", tables);
  const int64_t T = tables.count(), n = tables.symbols();
  RansShape shape = {
      T,
      n,
      T * (n + 1),  // with the end of each
      tables.low(),
      tables.precision(),
      tables.bucket_bits(),
      tables.escape(),
      tables.precision() <= 12 && n <= 256 && T << tables.precision() <= kRansDirectWords};
  if (tables.escape()) {
    shape.kept -= std::count_if(tables.intervals(), tables.intervals() + T * n,
                                [](uint32_t interval) { return interval >> 16 == 0; });
  }
  return shape;
}

}  // namespace otcuda
