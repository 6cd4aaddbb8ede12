// SPDX-License-Identifier: Apache-2.0
// The loop of the kernels that compare packed samples with packed targets: a block of kThreads
// holds 128 samples against panel after panel of 128 targets, a thread 8 x 8 sums.
#pragma once

#include <algorithm>

#include "cuda/device.h"
#include "cuda/power_argmax.h"
#include "cuda/power_argmax_chain.cuh"

namespace otcuda::cuda {

constexpr int kDepth = 16;  // dimensions of a slice: what one stage of the ring holds
constexpr int kStages = 3;
constexpr int kThreads = 256;
constexpr int kSide = 8;                    // a thread keeps 8 x 8 sums
constexpr int64_t kBlocksPerProcessor = 8;  // two at a time: four waves

struct Stage {
  float x[kDepth * kTile], y[kDepth * kTile];  // [depth][row]
};

struct Vector8 {
  float v[kSide];
};

__device__ __forceinline__ Vector8 load8(const float* row, int group) {
  const float4 a = *reinterpret_cast<const float4*>(row + 4 * group);
  const float4 b = *reinterpret_cast<const float4*>(row + 4 * group + kTile / 2);
  return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

// Copies slice after slice into the ring: of x, again for each panel of y, and of y, panel after
// panel.
struct Fetcher {
  Stage* ring;
  const float* x;  // this thread's 16 bytes of the first row of the panel
  const float* y;
  int size, next;  // floats of a panel, and where in it the next slice begins
  int panels_left, stage;

  __device__ __forceinline__ void operator()() {
    if (panels_left > 0) {
      const int t = int(threadIdx.x), left = size - next - 4 * t;
      Stage& slot = ring[stage];
#pragma unroll
      for (int k = 0; k < kDepth * kTile; k += 4 * kThreads) {
        if (k < left) {
          cp_async16(slot.x + 4 * t + k, x + next + k);
          cp_async16(slot.y + 4 * t + k, y + next + k);
        }
      }
      stage = stage == kStages - 1 ? 0 : stage + 1;
      next += kDepth * kTile;
      if (next >= size) {
        next = 0;
        y += size;
        --panels_left;
      }
    }
    cp_async_commit();
  }
};

__device__ __forceinline__ void multiply(const Stage& stage, int k, int tx, int ty,
                                         float (&sum)[kSide][kSide]) {
  const Vector8 x = load8(stage.x + k * kTile, ty), y = load8(stage.y + k * kTile, tx);
#pragma unroll
  for (int r = 0; r < kSide; ++r) {
#pragma unroll
    for (int c = 0; c < kSide; ++c) sum[r][c] = exact_fma(x.v[r], y.v[c], sum[r][c]);
  }
}

using Sums = float[kSide][kSide];  // [sample][target]

// The scores of one sample with the targets of a thread, the best of them; fmaxf passes NaN over,
// so a NaN score never wins.
__device__ __forceinline__ float best_of_eight(const float (&sum)[kSide], const Vector8& h) {
  float m[kSide];
#pragma unroll
  for (int c = 0; c < kSide; ++c) m[c] = __fadd_rn(sum[c], h.v[c]);
  const float low = fmaxf(fmaxf(m[0], m[1]), fmaxf(m[2], m[3]));
  return fmaxf(low, fmaxf(fmaxf(m[4], m[5]), fmaxf(m[6], m[7])));
}

// Which of the 16 groups of eight samples of a block, and of eight targets of a panel, are those of
// this thread: a warp covers 32 samples and 64 targets.
__device__ __forceinline__ int samples_of_thread() { return int(threadIdx.x) / 8 % 16; }
__device__ __forceinline__ int targets_of_thread() {
  return int(threadIdx.x) % 8 + int(threadIdx.x) / 128 * 8;
}

// Targets are shared out over gridDim.y: the panels of this block.
struct Share {
  int first, last;

  __device__ __forceinline__ explicit Share(int panels) {
    const int share = (panels + int(gridDim.y) - 1) / int(gridDim.y);
    first = min(int(blockIdx.y) * share, panels);
    last = min(first + share, panels);
  }
};

// keep(sum, heights, panel) for each panel: inner products, and heights of this thread's targets.
template <class Keep>
__device__ __forceinline__ void for_each_panel(Stage (&ring)[kStages], const float* x,
                                               const float* y, const float* heights,
                                               const Share& share, int D, Keep& keep) {
  const int t = int(threadIdx.x), tx = targets_of_thread(), ty = samples_of_thread();
  Fetcher fetch{ring,
                x + int64_t(blockIdx.x) * kTile * D + 4 * t,
                y + int64_t(share.first) * kTile * D + 4 * t,
                D * kTile,
                0,
                share.last - share.first,
                0};
  for (int i = 0; i < kStages - 1; ++i) fetch();
  int stage = 0;
  for (int panel = share.first; panel < share.last; ++panel) {
    float sum[kSide][kSide] = {};
    for (int d = 0; d < D; d += kDepth) {
      cp_async_wait<kStages - 2>();
      __syncthreads();  // all see this slice, and all are done with the slot that fetch fills
      fetch();
      if (D - d >= kDepth) {
#pragma unroll
        for (int k = 0; k < kDepth; ++k) multiply(ring[stage], k, tx, ty, sum);
      } else {
#pragma unroll 1
        for (int k = 0; k < D - d; ++k) multiply(ring[stage], k, tx, ty, sum);
      }
      stage = stage == kStages - 1 ? 0 : stage + 1;
    }
    keep(sum, load8(heights + int64_t(panel) * kTile, tx), panel);
  }
}

// Into how many shares targets are split, so that few samples still fill the card.
inline int64_t shares_of(int64_t row_blocks, int64_t units, int64_t wanted_blocks) {
  return std::max<int64_t>(1, std::min(units, wanted_blocks / std::max<int64_t>(row_blocks, 1)));
}

// The grid of a kernel that calls for_each_panel.
inline dim3 tile_grid(const Panels& x, const Panels& y) {
  const int64_t wanted = kBlocksPerProcessor * processors();
  const int64_t shares = std::min<int64_t>(shares_of(x.panels(), y.panels(), wanted), 65535);
  return {unsigned(x.panels()), unsigned(shares), 1};
}

}  // namespace otcuda::cuda
