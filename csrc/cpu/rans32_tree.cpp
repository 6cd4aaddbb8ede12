// SPDX-License-Identifier: Apache-2.0
#include "cpu/rans32_tree.h"

#include <algorithm>

#include "common/simd.h"
#include "cpu/tables.h"

namespace otcuda::cpu {

bool rans32_tree(const Tables& tables, RansTree* tree) {
  const int P = tables.precision();
  if (!simd_has_vbmi2() || tables.count() != 1 || P > kRansTreePrecisionMax) return false;
  constexpr int kMost = kRansTreeSymbols;
  *tree = {};
  uint16_t start[kMost];
  std::fill(start, start + kMost, uint16_t{INT16_MAX});  // above every slot
  const uint32_t total = (1u << P) - (tables.escape() ? 1 : 0);
  int rank = 0;
  for (uint32_t at = 0; at < total; ++rank) {
    const auto found = tables.find(0, at);
    // A lone symbol leaves no bit for the half that its frequency times 2^(16 - P) must fit.
    if (rank == kMost || found.frequency >> P != 0) return false;
    start[rank] = static_cast<uint16_t>(at);
    tree->symbol[kMost - 1 - rank] = static_cast<uint16_t>(found.symbol);
    tree->frequency[kMost - 1 - rank] = static_cast<uint16_t>(found.frequency);
    at += found.frequency;
  }
  if (tables.escape()) {
    if (rank == kMost) return false;
    start[rank] = static_cast<uint16_t>(tables.escape_slot());
    tree->frequency[kMost - 1 - rank] = 1;
  }
  std::reverse_copy(start, start + kMost, tree->start);
  for (int l = 0; l < kRansTreeLevels; ++l) {
    const int half = kMost >> (l + 1);  // ranks on either side of a threshold of this level
    for (int path = 0; path < 1 << l; ++path) {
      tree->level[l][path] = start[((1 << l) - 1 - path) * 2 * half + half];
    }
  }
  std::fill(tree->level[0], tree->level[0] + 32, tree->level[0][0]);
  tree->precision = P;
  tree->escape = tables.escape();
  tree->low = tables.low();
  return true;
}

}  // namespace otcuda::cpu
