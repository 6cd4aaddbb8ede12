// SPDX-License-Identifier: Apache-2.0
// list_newton: heights that balance the cells as the lists of top_cells see them.
//
// Sample s keeps K cells with their inner products; its winner at heights h is the best of them.
// Over M samples
//
//   F(h)   = 1/M sum_s max_k (inner_sk + h_k) - <h, nu>            the energy, hard
//   g_i    = c_i / M - nu_i                                       its gradient: counts, no
//   smoothing H      = 1/M sum_s (diag p_s - p_s p_s') / eps_s              p_s = softmax of the
//   list at
//                                                                 temperature eps_s = half the
//                                                                 local gap
//   (H + lambda diag(nu / gap)) d = -g                             Levenberg-Marquardt, by
//   Jacobi-PCG
//
// The step is cut to the room of the lists, then halved until F falls. Gradient hard, Hessian
// smoothed: there is no bias to anneal away, and Newton still sees the facets that no sample lies
// on.
//
//   reach_s  = best - cut of sample s when it was scanned
//   ratio_s  = (max_k d_k - min_k d_k) / (reach_s / 2)            at most 1: the winner is in the
//   list gap_i    = mean gap of best and second-best of cell i, censored at the reach, shrunk to
//   the mean
//              gap of all by two samples
//
// Contract:
//   shapes   index [M, K] int32 in [0, N), inner [M, K], reach [M] float32; nu, h, gap [N] float64;
//            2 <= K <= 23; a place with inner -inf is empty
//   threads  sums run over kListParts parts of the samples, then over the parts: no bit depends on
//   who
//            adds
//   stop     h is written at accepted steps only; an interrupted call leaves the last of them
//
// Reference: python_tests/ops/test_list_newton.py.
#pragma once

#include <cstdint>

namespace otcuda {

constexpr int kListParts = 8;  // of the samples; threads beyond that idle

struct NewtonSettings {
  double tolerance;  // chi2 left on the lists, as a share of (N-1)/M
  double room;       // of ratio, 99 % of the samples
  int iterations;
};

struct NewtonResult {
  double residual;  // chi2 on the lists over (N-1)/M
  double energy;
  int iterations, cg_iterations;
  bool unlisted;  // more than a few cells are in no list, and were raised by a gap
};

}  // namespace otcuda
