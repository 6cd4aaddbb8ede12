// SPDX-License-Identifier: Apache-2.0
// heights_adam_step: one step of Adam on the heights, without a Hessian (An et al., AE-OT, ICLR
// 2020).
//
//   g = mass - nu                      the gradient of the convex energy E[u_h(x)] - <h, nu>
//   m = beta1 m + (1 - beta1) g        v = beta2 v + ((1 - beta2) g) g
//   h = h - s m / (sqrt(c v) + eps)    s = lr / (1 - beta1^step), c = 1 / (1 - beta2^step)
//
// A cell with too much mass sinks. step counts from 1; step 0 leaves the corrections out (s = lr, c
// = 1), as AE-OT does.
//
// Contract, the same for every backend:
//   shapes   h, m, v, mass, nu [N], float32 or float64, all the same; h, m, v are written in place
//   value    each operation above is rounded once, in the dtype, in the order written (no fma);
//   constants are
//            computed in float64, powers by repeated squaring, and rounded to the dtype
//   heights  -inf stays -inf
//
// Reference: otcuda/reference.py.
#pragma once

#include "common/host_device.h"

namespace otcuda {

struct AdamSettings {
  double lr, beta1, beta2, eps;
};

template <class T>
struct AdamConstants {
  T beta1, one_minus_beta1, beta2, one_minus_beta2, scale, correction, eps;
};

OTCUDA_HD double power_by_squaring(double a, int64_t n) {
  double power = 1.0;
  for (; n > 0; n >>= 1, a *= a) {
    if ((n & 1) != 0) power *= a;
  }
  return power;
}

template <class T>
OTCUDA_HD AdamConstants<T> adam_constants(const AdamSettings& adam, int64_t step) {
  const double left1 = step > 0 ? 1.0 - power_by_squaring(adam.beta1, step) : 1.0;
  const double left2 = step > 0 ? 1.0 - power_by_squaring(adam.beta2, step) : 1.0;
  return {T(adam.beta1),
          T(1.0 - adam.beta1),
          T(adam.beta2),
          T(1.0 - adam.beta2),
          T(exact_divide(adam.lr, left1)),
          T(exact_divide(1.0, left2)),
          T(adam.eps)};
}

template <class T>
OTCUDA_HD void heights_adam_update(T mass, T nu, const AdamConstants<T>& c, T* h, T* m, T* v) {
  const T g = mass - nu;
  const T mean = c.beta1 * *m + c.one_minus_beta1 * g;
  const T square = c.beta2 * *v + c.one_minus_beta2 * g * g;
  *m = mean;
  *v = square;
  *h = *h - exact_divide(c.scale * mean, exact_sqrt(c.correction * square) + c.eps);
}

}  // namespace otcuda
