// SPDX-License-Identifier: Apache-2.0
// power_argmax through the tensor cores: a screen in bfloat16, a certificate for each winner
// (common/power_argmax_screen.h), the exact chain for the few groups of targets that are left. The
// bits are those of power_argmax.h; how it is fast: docs/cuda.md.
#pragma once

#include <cstdint>

#include "common/tensor_view.h"

namespace otcuda::cuda {

constexpr int64_t kScreenMostD = 128;
constexpr int64_t kScreenMostN = int64_t(1) << 24;

// Whether the screen takes problems of this shape.
bool power_argmax_screen_fits(DType dtype, int64_t B, int64_t N, int64_t D);

// O((B + N) D) bytes and at most 128 MiB of maxima of groups at a time; never B x N.
int64_t power_argmax_screen_workspace(int64_t B, int64_t N, int64_t D);

// The instruction that multiplies.
enum class ScreenBy {
  mma,    // mma.sync: compute capability 8.0 and later
  wgmma,  // of a warpgroup: 9.0 alone
};

// Whether a device has the second, and this build code for it.
bool power_argmax_has_wgmma(int device);

// As power_argmax. The first word of the workspace (int32) then tells how many samples of the last
// chunk had no certificate and went through all targets.
void power_argmax_screen(const TensorView& x, const TensorView& y, const TensorView& h,
                         const TensorView& value, const TensorView& index,
                         const TensorView& workspace, uintptr_t stream,
                         ScreenBy by = ScreenBy::mma);

}  // namespace otcuda::cuda
