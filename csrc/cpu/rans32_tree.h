// SPDX-License-Identifier: Apache-2.0
// One small table of rans32 as a search tree that lies in registers: no load a symbol. Included by
// files of one instruction set: no standard header but <cstdint>.
#pragma once

#include <cstdint>

#include "cpu/rans32_kernels.h"

namespace otcuda::cpu {

constexpr int kRansTreeLevels = 6;
constexpr int kRansTreeSymbols = 1 << kRansTreeLevels;  // with a frequency, the escape among them
constexpr int kRansTreePrecisionMax = 14;  // slots and what stands for no start are int16
constexpr int kRansTreeRuns = 4;

// A path is a number of a bit a level, the first one highest: 1 if slot < level[l][the path so
// far]. The other arrays are in the order of whole paths: the last symbol first.
struct RansTree {
  alignas(64) uint16_t level[kRansTreeLevels][32];
  alignas(64) uint16_t frequency[kRansTreeSymbols];
  alignas(64) uint16_t start[kRansTreeSymbols];
  alignas(64) uint16_t symbol[kRansTreeSymbols];  // the escape's is 0
  int precision;
  bool escape;
  int32_t low;
};

// Whether the tables, the CPU and the level in force allow it.
class Tables;
bool rans32_tree(const Tables& tables, RansTree* tree);

// As RansKernels::decode, of 1 to kRansTreeRuns runs in one loop. The tables of the runs are not
// read. For CPUs with VBMI2.
int64_t rans32_decode_tree(const RansTree& tree, RansDecodeRun* runs, int count);

}  // namespace otcuda::cpu
