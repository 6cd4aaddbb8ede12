// SPDX-License-Identifier: Apache-2.0
// power_argmax: the cell of a power diagram in which each sample lies.
//
//   value[b] = max_i s(b, i)     index[b] = argmax_i s(b, i)     s(b, i) = <x_b, y_i> + h_i
//
// With h_i = g_i - |y_i|^2 / 2 this is the semi-discrete OT map for the cost |x - y|^2 / 2
// (docs/transport.md, eq. 3); value is the Brenier potential u_h(x_b).
//
// Contract, the same for every backend:
//   shapes   x [B, D], y [N, D], h [N] -> value [B], index [B] int64; row-major; B, D >= 0, N >= 1;
//            or G such problems, [G, B, D] .. [G, B], each alone
//   dtypes   float32 or float64, the same for x, y, h and value
//   value    s = +0; for d = 0 .. D-1: s = fma(x[b,d], y[i,d], s); then s + h[i]; bit for bit
//   ties     the lowest index wins; +0 and -0 are equal
//   NaN      a NaN score never wins; a row of NaN scores gives value NaN and index -1
//   heights  -inf is legal (a dead cell); a row of -inf scores gives the lowest of them; +inf wins
//   modes    subnormals count, rounding is to nearest, whatever the caller's floating point mode
//   memory   O(B + threads * max(1 MiB, 64 D)); nothing of size B N, no copy of y
//   threads  samples are shared out, targets too when samples are few; the result does not depend
//   on it
//
// Reference: otcuda/reference.py.  How each backend is fast, and the proof: docs/power_argmax.md.
#pragma once

#include "common/host_device.h"

namespace otcuda {

// s(b, i) of the contract.
template <class T>
OTCUDA_HD T power_argmax_score(const T* x, const T* y, T h, int64_t D) {
  T s = T(0);
  for (int64_t d = 0; d < D; ++d) s = exact_fma(x[d], y[d], s);
  return s + h;
}

// Whether a score replaces the best of the targets before it. `best` starts as NaN: the first
// number replaces it, -inf included, and a NaN replaces nothing. Merging two runs of targets in
// order is the same question.
template <class T>
OTCUDA_HD bool power_argmax_beats(T score, T best) {
  return score > best || (best != best && score == score);
}

}  // namespace otcuda
