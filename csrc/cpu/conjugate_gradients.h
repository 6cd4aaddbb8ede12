// SPDX-License-Identifier: Apache-2.0
// Conjugate gradients with a diagonal preconditioner, for Hessians that do not see constants.
// Sums run in order, so that results do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/alloc.h"

namespace otcuda::cpu {

inline double dot(const Buffer<double>& a, const Buffer<double>& b) {
  double sum = 0.0;
  for (int64_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

inline void centre(Buffer<double>* a) {
  double mean = 0.0;
  for (const double each : *a) mean += each;
  mean /= double(a->size());
  for (double& each : *a) each -= mean;
}

struct ConjugateGradients {
  explicit ConjugateGradients(int64_t N)
      : step(N), residual(N), diagonal(N), direction(N), image(N), preconditioned(N) {}

  // step = H^-1 residual, both without constants, to a part of the residual; returns the turns.
  // apply() leaves H direction in image; the caller has set residual and diagonal.
  template <class Apply>
  int solve(double tolerance, int most, const Apply& apply) {
    step.fill(0.0);
    centre(&residual);
    for (int64_t i = 0; i < step.size(); ++i) preconditioned[i] = residual[i] / diagonal[i];
    std::copy(preconditioned.begin(), preconditioned.end(), direction.begin());
    double fit = dot(residual, preconditioned);
    const double goal = tolerance * tolerance * fit;
    int k = 0;
    while (k < most && fit > 0.0) {
      ++k;
      apply();
      const double curvature = dot(direction, image);
      if (!(curvature > 0)) break;
      const double size = fit / curvature;
      for (int64_t i = 0; i < step.size(); ++i) {
        step[i] += size * direction[i];
        residual[i] -= size * image[i];
        preconditioned[i] = residual[i] / diagonal[i];
      }
      const double next = dot(residual, preconditioned);
      if (!(next > goal)) break;
      for (int64_t i = 0; i < step.size(); ++i) {
        direction[i] = preconditioned[i] + next / fit * direction[i];
      }
      fit = next;
    }
    return k;
  }

  Buffer<double> step, residual, diagonal, direction, image, preconditioned;
};

}  // namespace otcuda::cpu
