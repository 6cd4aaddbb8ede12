// SPDX-License-Identifier: Apache-2.0
// heights_adam_solve on a CUDA device; contract in common/heights_adam_solve.h.
#pragma once

#include <cstdint>

#include "common/heights_adam_solve.h"
#include "common/poll.h"
#include "common/tensor_view.h"

namespace otcuda::cuda {

// y [N, D], nu, h, m, v [N], all float32 or all float64, and chi2 [iterations] float64 lie on the
// device; lr [iterations] and step lie in host memory. With device_step the number of steps done
// lies on the device as well and nothing depends on what the host knows: a call that was captured
// in a graph makes the next steps at each replay, by the same lr.
struct SolveArguments {
  TensorView y, nu, h, m, v, chi2;
  const double* lr;
  int64_t* step;
  SourceKind source;
  uint64_t seed;
  int64_t batch;
  bool bias_correction;
  AdamSettings adam;               // lr is that of the iteration
  int64_t* device_step = nullptr;  // in place of step
};

int64_t heights_adam_solve_workspace(DType dtype, int64_t N, int64_t D, int64_t batch);

// Enqueues whole steps and waits for none: step counts what is on the stream, and poll hears of
// that. When poll stops the call, what was enqueued still runs, so state and step belong together.
void heights_adam_solve(const SolveArguments& arguments, const TensorView& workspace, Poll* poll,
                        uintptr_t stream);

}  // namespace otcuda::cuda
