// SPDX-License-Identifier: Apache-2.0
// planar_newton: heights that balance the cells of a power diagram in the plane, without samples.
//
//   m_i(h)  = mu(W_i(h))                          the mass of cell i, a convex polygon
//   H_ij    = -(integral of rho over the edge between W_i and W_j) / |y_i - y_j|,  rows sum to 0
//   H d     = nu - m                              Newton's step, by a direct factorisation
//   h      += t d,   t = 1, 1/2, 1/4, ...         until no cell is below a tenth of the least
//                                                 m_i / nu_i at the start (1 at most), and
//                                                 sqrt(chi2) is below (1 - t/2) of what it was
//
// That rule leads to the solution from any heights with no empty cell (Kitagawa, Merigot, Thibert,
// Convergence of a Newton algorithm for semi-discrete optimal transport, JEMS 2019).
//
// Contract:
//   source   uniform and gaussian_cdf are the unit square; normal is cut off at |x_k| <= 9, where
//            5e-19 of it is left
//   shapes   y [N, 2] float32, nu, h, mass [N] float64, all finite; nu > 0, sum 1
//   mass     of the exact cells, each to about 1e-14 absolutely; an empty cell has 0
//   threads  no sum depends on who adds
//   stop     h is written at accepted steps only; an interrupted call leaves the last of them
//
// Reference: python_tests/ops/test_planar_newton.py.
#pragma once

#include <cstdint>

namespace otcuda {

struct PlanarSettings {
  double tolerance;  // chi2 at which to stop
  int iterations;    // steps at most
  double least;      // m_i / nu_i that no step goes below; 0: a tenth of the least at the start
  double step;       // t that the first step begins with, at most 1
};

struct PlanarResult {
  double chi2;      // of the exact masses at h
  double least;     // as in the settings, and ...
  double step;      // ... twice the last t: what goes on where this ended
  int iterations;   // accepted steps
  int diagrams;     // that were made
  int64_t entries;  // of the factor of the last H, below its diagonal
  bool stuck;       // a cell is empty, or no step helped
};

}  // namespace otcuda
