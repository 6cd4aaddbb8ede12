// SPDX-License-Identifier: Apache-2.0
#include "cuda/shim.cuh"
#include "planted.h"

namespace {
enum Bug {
  none,
  missing_barrier,
  shared_race,
  global_overrun,
  shared_overrun,
  divergent_barrier,
  missing_wait,
  missing_warp_sync,
  wrong_mask,
  uninitialised,
  block_race,
  slot_reuse,
  writes_input,
  misaligned,
  never_awaited,
  endless,
  third_reader,
  vote_for_sync,
  bugs
};

constexpr int kThreads = 128;

template <int bug>
__global__ void planted_kernel(const float* __restrict__ in, float* __restrict__ out, int n,
                               unsigned* __restrict__ total) {
  OTCUDA_SHARED(tile, float[kThreads]);
  OTCUDA_SHARED(buffer, float[2][4 * kThreads]);
  OTCUDA_SHARED(count, unsigned[1]);
  const int t = int(threadIdx.x), i = int(blockIdx.x) * kThreads + t;
  if (bug != uninitialised && t == 0) count[0] = 0;
  tile[t + (bug == shared_overrun)] = i < n + (bug == global_overrun) ? in[i] : 0.0f;
  if (bug != missing_barrier) __syncthreads();
  float v = tile[kThreads - 1 - t];
  if (bug == shared_race) {
    count[0] += v > 0;
  } else {
    atomicAdd(&count[0], v > 0);
  }
  cp_async16(&buffer[0][4 * t], in + (bug == misaligned));
  cp_async_commit();
  if (bug != missing_wait) cp_async_wait<0>();
  if (bug != divergent_barrier || t < 64) __syncthreads();
  v += buffer[0][4 * (t ^ 1)];
  if (bug == slot_reuse) {  // others still read it
    cp_async16(&buffer[0][4 * t], in);
    cp_async_commit();
    cp_async_wait<0>();
  }
  if (bug == never_awaited) cp_async16(&buffer[1][4 * t], in);
  tile[t] = v;                 // exchange inside a warp
  if (bug == vote_for_sync) {  // brings lanes together, and orders no memory
    v += __ballot_sync(~0u, v > 1e9f) != 0;
  } else if (bug != missing_warp_sync) {
    __syncwarp();
  }
  v += tile[t ^ 16];
  if (bug != wrong_mask || t % 32 < 16) v += __shfl_xor_sync(~0u, v, 8);
  while (bug == endless && atomicAdd(&count[0], 0u) < ~0u) {
  }
  if (bug == writes_input) const_cast<float*>(in)[t] = v;
  if (i < n) out[i] = v;
  if (t == 0) {
    if (bug == block_race) {
      *total += count[0];
    } else {
      atomicAdd(total, count[0]);
    }
  }
}

// Three readers, the last two of the writer's own warp and ordered by __syncwarp: the first one, of
// another warp, must not be forgotten.
template <>
__global__ void planted_kernel<third_reader>(const float* __restrict__ in, float* __restrict__ out,
                                             int n, unsigned* __restrict__) {
  OTCUDA_SHARED(word, float[1]);
  const int t = int(threadIdx.x), i = int(blockIdx.x) * kThreads + t;
  if (t == 0) word[0] = in[0];
  __syncthreads();
  float v = 0.0f;
  if (t >= kThreads - 32 || t == 1 || t == 2) v = word[0];
  if (t < 32) {
    __syncwarp();
    if (t == 3) word[0] = v;
  }
  if (i < n) out[i] = v;
}

template <int bug>
void launch(int which, const float* in, float* out, int n, unsigned* total) {
  if constexpr (bug < bugs) {
    if (which != bug) return launch<bug + 1>(which, in, out, n, total);
    const dim3 grid{unsigned(n + kThreads - 1) / kThreads};
    OTCUDA_LAUNCH((planted_kernel<bug>), grid, dim3{kThreads}, 0, nullptr, in, out, n, total);
  }
}
}  // namespace

void planted(int bug, const float* in, float* out, int n, unsigned* total) {
  launch<none>(bug, in, out, n, total);
}
