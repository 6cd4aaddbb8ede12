// SPDX-License-Identifier: Apache-2.0
// top_cells: the K best cells of each sample, and the best value left out.
//
//   index[b, 0 .. K-1]   the K targets of largest s(b, i), best first
//   inner[b, k]          <x_b, y_i> of target i = index[b, k], without its height
//   cut[b]               the (K+1)-th largest s(b, i); -inf where there is none
//
//   plain samples        inner = the fma chain of power_argmax, s = inner + h: the first of the
//   list
//                        is power_argmax's winner, bit for bit
//   product samples      group g has kHalves left halves l and as many right halves r; its sample
//                        l * kHalves + r is their union, so kHalves^2 samples cost 2 kHalves half
//                        inner products:
//                          left  = chain over d = 0 .. L-1 of half l,  right = chain over the rest
//                          inner = left + right,  s = (left + h) + right
//
// For heights h' the values inner + h'_i of the list are exact up to rounding, and no target
// outside it exceeds cut + max_i (h'_i - h_i): the winner among all targets is known without a scan
// as long as the list's best stays above that (docs/transport.md, 5).
//
// Contract, the same for every backend:
//   shapes   x [B, D] (product: [G, kHalves, D], left halves in d < L, right ones in d >= L), y [N,
//   D],
//            h [N], float32 -> index [B, K] int32, inner [B, K], cut [B]; 1 <= K <= 23, N < 2^31
//   ties     the lower index comes first
//   missing  NaN and -inf scores are in no list; places left over hold index 0 and inner -inf
//   threads  samples are shared out; the result does not depend on it, nor on the level
//   memory   O(threads * 1 MiB)
#pragma once

#include "common/host_device.h"

namespace otcuda {

constexpr int kHalves = 16;        // of a side of a product group
constexpr int kMostTopCells = 23;  // K

}  // namespace otcuda
