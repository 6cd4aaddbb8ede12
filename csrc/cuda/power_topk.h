// SPDX-License-Identifier: Apache-2.0
// power_topk, and power_argmax with its gap, on a CUDA device; contract in common/power_topk.h, how
// they are fast in docs/cuda.md.
#pragma once

#include <cstdint>

#include "common/tensor_view.h"
#include "cuda/shim.cuh"

namespace otcuda::cuda {

// Bytes of workspace that a call with these shapes works best with: O((B + N) D), and at most 32
// MiB or 64 bytes a target (128 in float64) of maxima, whichever is more; never B x N. With less,
// down to 128 samples, it works in more and smaller chunks.
int64_t power_topk_workspace(DType dtype, int64_t B, int64_t N, int64_t D);

// x [B, D], y [N, D], h [N], float32 or float64 -> value [B, k], index [B, k] int64, 1 <= k <= 64;
// workspace: bytes, any contents.
void power_topk(const TensorView& x, const TensorView& y, const TensorView& h,
                const TensorView& value, const TensorView& index, const TensorView& workspace,
                uintptr_t stream);

// The best of each sample and its gap: value, index, gap [B]; the workspace is that of power_topk.
void power_argmax_gap(const TensorView& x, const TensorView& y, const TensorView& h,
                      const TensorView& value, const TensorView& index, const TensorView& gap,
                      const TensorView& workspace, uintptr_t stream);

}  // namespace otcuda::cuda
