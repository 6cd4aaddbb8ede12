// SPDX-License-Identifier: Apache-2.0
// heights_adam_solve: many iterations of samples, argmax, mass and step in one call.
//
//   for step = state.step + 1, ...:                              c_i, from `batch` samples of the
//   source
//     x       = source_samples(source, seed, stream = step)      [batch, D]
//     index   = power_argmax(x, y, h)
//     c       = cell_mass(index, N)                              counts
//     chi2    = sum_i c_i (c_i - 1) / nu_i / (batch (batch - 1)) - 1
//     heights_adam_step(h, m, v, c / batch, nu, step, lr of this iteration)
//     every 256th step: h -= mean of the finite h                (the argmax does not feel it,
//     rounding does)
//
// chi2 is unbiased for the heights before the step (docs/transport.md); cells with nu_i = 0 are
// left out, and it is NaN for a batch of one.
//
// Contract, the same for every backend:
//   shapes   y [N, D], nu, h, m, v [N], float32 or float64; lr, chi2 [iterations] float64; step [1]
//   int64 state    h, m, v and step are written in place, together: wherever the call is stopped
//   they belong to a whole
//            number of steps, and going on from them gives the bits of a run that was never stopped
//   value    mass_i is c_i / batch rounded to float64 and then to the dtype; sums over cells are in
//   float64, over
//            blocks of 1024 cells in order, then over the blocks in order
//
// Reference: otcuda/reference.py.
#pragma once

#include "common/heights_adam_step.h"
#include "common/source_samples.h"

namespace otcuda {

constexpr int64_t kCellBlock = 1024;      // of the sums over cells
constexpr int64_t kCentringPeriod = 256;  // steps

OTCUDA_HD double chi2_term(int64_t count, double nu) {
  return nu > 0.0 ? exact_divide(double(count) * double(count - 1), nu) : 0.0;
}

// `sum` is that of chi2_term over the cells.
OTCUDA_HD double chi2_from_sum(double sum, int64_t batch) {
  return exact_divide(sum, double(batch) * double(batch - 1)) - 1.0;
}

template <class T>
OTCUDA_HD T mass_from_count(int64_t count, int64_t batch) {
  return T(exact_divide(double(count), double(batch)));
}

OTCUDA_HD bool is_finite(double a) { return a - a == 0.0; }

}  // namespace otcuda
