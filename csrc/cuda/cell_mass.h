// SPDX-License-Identifier: Apache-2.0
// cell_mass on a CUDA device; contract in common/cell_mass.h, how it is fast in docs/cuda.md.
#pragma once

#include <cstdint>

#include "common/tensor_view.h"

namespace otcuda::cuda {

// What a call could not do, in the first two words of the workspace once the stream is done: the
// first sample whose index is no cell, and the first whose weight is not finite; no_fault where
// there is none. Such samples are left out. Asking is up to the caller, since it means waiting for
// the device.
constexpr int64_t no_fault = -1;

int64_t cell_mass_workspace(int64_t N, bool weighted);

// index [B] int64 -> mass [N] int64; workspace: bytes, any contents.
void cell_mass_counts(const TensorView& index, const TensorView& mass, const TensorView& workspace,
                      uintptr_t stream);

// index [B] int64, weights [B] float32 or float64 -> mass [N] in the dtype of weights.
void cell_mass_sums(const TensorView& index, const TensorView& weights, const TensorView& mass,
                    const TensorView& workspace, uintptr_t stream);

}  // namespace otcuda::cuda
