// SPDX-License-Identifier: Apache-2.0
// Whole arrays through rans32, in blocks. Contract: csrc/common/rans32.h.
#pragma once

#include <cstdint>

#include "common/alloc.h"
#include "common/poll.h"
#include "common/tensor_view.h"
#include "cpu/tables.h"

namespace otcuda::cpu {

constexpr int64_t kRansBlockMax = int64_t{1} << 28;

// Of a block: its words (u16, the states not among them), the bytes of its escaped values, and the
// check of its symbols.
struct RansBlock {
  uint32_t words, side, check;
};

// symbols [n] by table index[i] (none: by table 0) in blocks of `block` symbols, a multiple of 32.
// blocks [ceil(n / block)], out. Returns the bytes of each block, padded to 4.
// ArgumentError as range64_put. Blocks are shared out among threads; the bytes do not depend on it.
Vector<Vector<uint8_t>> rans32_encode(const Tables& tables, const TensorView& symbols,
                                      const TensorView* index, int64_t block, RansBlock* blocks,
                                      Poll& poll);

// The inverse, of blocks that lie one after the other. CorruptDataError for what no encoder writes,
// for another check, and for symbols that do not fit the dtype of the output. Without `check` the
// symbols are not checked, to see what that costs.
void rans32_decode(const Tables& tables, const uint8_t* data, int64_t size, const TensorView* index,
                   int64_t block, const RansBlock* blocks, const TensorView& symbols, Poll& poll,
                   bool check = true);

}  // namespace otcuda::cpu
