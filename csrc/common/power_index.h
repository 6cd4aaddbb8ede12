// SPDX-License-Identifier: Apache-2.0
// power_index: targets prepared once for many calls of power_argmax.
//
// A PowerIndex owns a copy of y [N, D] and, where it may pay, a tree of boxes; heights h [N] are
// set in O(N). Its argmax has the contract of common/power_argmax.h, bit for bit: the tree leaves
// out only targets that provably can neither win nor tie. Its topk has the contract of
// common/power_topk.h: the same boxes, held against the k-th best score instead of the best.
//
//   S_i = <x, y_i> + h_i = |x|^2 / 2 + w_i - |x - y_i|^2 / 2,   w_i = h_i + |y_i|^2 / 2
//
// so no target of a box scores more than |x|^2 / 2 + max w - dist^2(x, box) / 2. With u the
// rounding unit, of each target i: the chain is off by at most (D + 2) u (|x| |y_i| + |h_i|), the
// sum of squares by (D + 4) u (|x|^2 + |y_i|^2), the rest by less than 8 u (|x|^2 + |y_i|^2 +
// |h_i|); since |x| |y_i| <= (|x|^2 + |y_i|^2) / 2, power_index_slack of |x|^2 and of |y_i|^2 +
// |h_i|, the latter a part of w_i, cover them all. docs/power_argmax.md has the proof.
#pragma once

#include "common/host_device.h"

namespace otcuda {

constexpr int kTreeWidth = 16;                 // children of a node, targets of a leaf
constexpr int32_t kNoChild = -0x7fffffff - 1;  // others: node k >= 0, leaf ~k < 0

// What the bound of a target may be off by, for its share of the size |x|^2 + |y_i|^2 + |h_i|.
OTCUDA_HD double power_index_slack(int64_t D, double unit, double size) {
  return unit * (3.0 * double(D) + 32.0) * size + 1e-37;
}

}  // namespace otcuda
