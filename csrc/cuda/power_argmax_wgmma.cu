// SPDX-License-Identifier: Apache-2.0
// The screen of power_argmax for sm_90a: products of warpgroups, targets by bulk copies. The same
// maxima of the same groups as in power_argmax_screen.cu, which packs before and selects after.
#include <algorithm>
#include <cmath>

#include "cuda/device.h"
#include "cuda/power_argmax_screen.cuh"
#include "cuda/power_argmax_screen.h"

namespace otcuda::cuda {
namespace {

constexpr int kGroupThreads = 128;  // of a warpgroup
constexpr int kWarpgroups = 4;      // that multiply; one more warp brings targets
constexpr int kThreads = kWarpgroups * kGroupThreads + 32;
constexpr int kBlockRows = kWarpgroups * 64;
constexpr int64_t kBlocksPerProcessor = 4;

template <int W>
constexpr int kStages = W > 64 ? 4 : 6;

template <int W>
struct alignas(1024) WgmmaStage {
  uint16_t y[kGroup * W];
  float heights[2 * kGroup];
};
template <int W>
struct WgmmaShared {
  WgmmaStage<W> ring[kStages<W>];
  Mbarrier full[kStages<W>];   // a group has landed
  Mbarrier empty[kStages<W>];  // all warps are done with it
};

#if defined(OTCUDA_SM90A) || defined(OTCUDA_EMULATED)

// The descriptor of 64 targets whose rows are swizzled by 2 W or 128 bytes, without where they lie.
template <int W>
constexpr uint64_t kTileShape = uint64_t(W < 64 ? 2 : 1) << 62 |    // swizzle of 64 or 128 bytes
                                uint64_t(W < 64 ? 32 : 64) << 32 |  // 8 rows, in units of 16
                                uint64_t(1) << 16;

// The samples of a warpgroup against one group: the sums begin at the heights.
template <int W>
__device__ __forceinline__ void begin_products(float (&sum)[32], const uint32_t (&a)[W / 16][4],
                                               const WgmmaStage<W>& stage) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < kGroup / 8; ++n) {
    const float2 h = *reinterpret_cast<const float2*>(stage.heights + 16 * n + lane % 4 * 4);
    sum[4 * n] = h.x;
    sum[4 * n + 1] = h.y;
    sum[4 * n + 2] = h.x;
    sum[4 * n + 3] = h.y;
  }
  wgmma_fence(sum);
  const uint64_t tile = kTileShape<W> | (shared_address(stage.y) & 0x3ffff) >> 4;
#pragma unroll
  for (int k = 0; k < W / 16; ++k) {  // 32 bytes further in a row, or the next block of rows
    wgmma_bf16_64x64x16(sum, a[k], tile + k / 4 * (kGroup * 128 / 16) + k % 4 * 2);
  }
  wgmma_commit();
}

// The largest sums of two samples among the four lanes that hold them: of the first for even lanes,
// of the second for odd ones.
__device__ __forceinline__ float largest(const float (&sum)[32]) {
  float top[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    top[i] = fmaxf(sum[2 * i], sum[2 * i + 1]);
#pragma unroll
    for (int n = 1; n < kGroup / 8; ++n) {
      top[i] = fmaxf(top[i], fmaxf(sum[4 * n + 2 * i], sum[4 * n + 2 * i + 1]));
    }
  }
  const bool odd = threadIdx.x % 2;
  const float other = __shfl_xor_sync(~0u, odd ? top[0] : top[1], 1);
  const float most = fmaxf(odd ? top[1] : top[0], other);
  return fmaxf(most, __shfl_xor_sync(~0u, most, 2));
}

// Calls f(stage, parity, group) for each group; stages count up and begin again in the next phase.
template <int W, class Function>
__device__ __forceinline__ void each_turn(int first, int last, const Function& f) {
  int group = first;
  for (unsigned parity = 0;; parity ^= 1) {
#pragma unroll
    for (int stage = 0; stage < kStages<W>; ++stage) {  // unrolled: addresses are constants
      if (group >= last) return;
      f(stage, parity, group++);
    }
  }
}

// The extra warp: one lane brings group after group.
template <int W>
__device__ __forceinline__ void produce(const ScreenProblem& p, WgmmaShared<W>& s, int first,
                                        int last) {
  each_turn<W>(first, last, [&](int stage, unsigned parity, int group) {
    mbarrier_wait(&s.empty[stage], parity ^ 1);
    WgmmaStage<W>& slot = s.ring[stage];
    mbarrier_arrive_expect(&s.full[stage], sizeof slot.y + sizeof slot.heights);
    bulk_copy(slot.y, p.y + int64_t(group) * kGroup * W, sizeof slot.y, &s.full[stage]);
    bulk_copy(slot.heights, p.heights + int64_t(group) * 2 * kGroup, sizeof slot.heights,
              &s.full[stage]);
  });
}

// A warpgroup: group after group. While it looks through its sums, the others multiply.
template <int W>
__device__ __forceinline__ void consume(const ScreenProblem& p, WgmmaShared<W>& s, int first,
                                        int last) {
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32 % 4;
  const int row = int(blockIdx.x) * kBlockRows + int(threadIdx.x) / kGroupThreads * 64;
  const bool mine = row < p.stride;  // else the samples before, for nothing
  const uint16_t* tile = p.x + int64_t(mine ? row : row - kRows) * W;
  uint32_t a[W / 16][4];
#pragma unroll
  for (int k = 0; k < W / 16; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int place = chunk_place<W>(warp * 16 + i % 2 * 8 + lane / 4, 2 * k + i / 2);
      a[k][i] = *reinterpret_cast<const uint32_t*>(tile + place + lane % 4 * 2);
    }
  }
  float* out = p.maxima + int64_t(first) * p.stride + row + warp * 16 + lane % 2 * 8 + lane / 4;
  const bool writes = mine && lane % 4 < 2;

  each_turn<W>(first, last, [&](int stage, unsigned parity, int) {
    float sum[32];
    mbarrier_wait(&s.full[stage], parity);
    begin_products<W>(sum, a, s.ring[stage]);
    wgmma_wait<0>(sum);
    __syncwarp();
    if (lane == 0) mbarrier_arrive(&s.empty[stage]);
    const float most = largest(sum);
    if (writes) *out = most;
    out += p.stride;
  });
}

#endif

template <int W>
__global__ void __launch_bounds__(kThreads, 1) power_argmax_wgmma_kernel(ScreenProblem p) {
#if defined(OTCUDA_SM90A) || defined(OTCUDA_EMULATED)
  OTCUDA_SWIZZLED_SHARED(WgmmaShared<W>, shared);
  WgmmaShared<W>& s = shared[0];
  const int share = (p.group_count + int(gridDim.y) - 1) / int(gridDim.y);
  const int first = int(blockIdx.y) * share, last = min(first + share, p.group_count);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages<W>; ++i) {
      mbarrier_init(&s.full[i], 1);
      mbarrier_init(&s.empty[i], kWarpgroups * 4);
    }
    fence_proxy_async();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroups * kGroupThreads) {
    consume<W>(p, s, first, last);
  } else if (threadIdx.x % 32 == 0) {
    produce<W>(p, s, first, last);
  }
#endif
}

template <int W>
void launch(const ScreenProblem& p, cudaStream_t stream) {
  const int64_t row_blocks = ceil_div(p.rows, kBlockRows);
  const int64_t wanted = kBlocksPerProcessor * processors() / row_blocks;
  const int64_t shares = std::clamp<int64_t>(wanted, 1, std::min(p.group_count, 65535));
  constexpr int kBytes = sizeof(WgmmaShared<W>);
  check_cuda(cudaFuncSetAttribute(power_argmax_wgmma_kernel<W>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
             "power_argmax, shared memory");
  OTCUDA_LAUNCH((power_argmax_wgmma_kernel<W>), (dim3{unsigned(row_blocks), unsigned(shares), 1}),
                dim3{kThreads}, kBytes, stream, p);
  check_launch("power_argmax, screen by wgmma");
}

}  // namespace

bool power_argmax_has_wgmma(int device) {
#if OTCUDA_WGMMA
  int major = 0, minor = 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
             "cudaDeviceGetAttribute");
  check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
             "cudaDeviceGetAttribute");
  return major == 9 && minor == 0;
#else
  return device < 0;  // none
#endif
}

void launch_wgmma_screen(const ScreenProblem& p, cudaStream_t stream) {
  with_width(p.D, [&](auto width) { launch<decltype(width)::value>(p, stream); });
}

}  // namespace otcuda::cuda
