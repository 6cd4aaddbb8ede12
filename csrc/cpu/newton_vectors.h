// SPDX-License-Identifier: Apache-2.0
// What conjugate gradients on a Hessian without constants need of vectors, summed in order.
#pragma once

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

}  // namespace otcuda::cpu
