// SPDX-License-Identifier: Apache-2.0
// heights_asgd_solve: averaged stochastic gradient descent on the heights, many steps in one call.
//
//   for k = 0 .. iterations-1, s = step + 1:
//     c_i    = samples of stream s of (source, seed) in cell i, of `batch` in all
//     h_i   -= clip(rate_k (c_i / batch - nu_i) / nu_i, -limit, +limit)
//     mean_i += share_k (h_i - mean_i)
//     step   = s
//
// With rate = kappa unit batch / N a hit moves a height by kappa units / (N nu_i), the unit being
// the mean gap of best and second-best value: no constant depends on the problem
// (docs/transport.md, 4). The averages are the answer (Polyak, Juditsky 1992).
//
// Contract:
//   shapes   y [N, D] float32; nu, h, mean [N], rate, share [iterations] float64; step [1] int64
//   product  batch counts samples, kHalves^2 a group; halves of group g are rows kHalves g .. of
//   the
//            stream, left in columns below D/2, right in the others (top_cells.h)
//   state    h, mean and step are written together: a call that is stopped leaves whole steps, and
//            going on gives the bits of a run that was never stopped
//   value    counts are of power_argmax (product: of top_cells) at float32(h); the rest in float64
//
// Reference: python_tests/ops/test_heights_asgd_solve.py.
#pragma once

#include "common/source_samples.h"
#include "common/top_cells.h"
