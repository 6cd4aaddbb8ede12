// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "cuda/device.h"
#include "cuda/power_argmax.h"
#include "cuda/power_argmax_chain.cuh"
#include "cuda/power_argmax_screen.cuh"
#include "cuda/power_argmax_screen.h"

namespace otcuda::cuda {
namespace {

constexpr int kThreads = 128;    // 32 samples a warp
constexpr int kCandidates = 16;  // groups of a sample that are looked at again
constexpr int kSelectRows = 32;  // samples of a block that selects
constexpr int kSelectThreads = 256;
constexpr int64_t kMostMaximaBytes = int64_t(128) << 20;
constexpr int64_t kBlocksPerProcessor = 8;

// ---- packing: bfloat16 in the order of shared memory, and norms; a warp a row

struct Packed {
  uint16_t* rows;  // [padded, W]
  ScreenNorms* norms;
  int64_t n, padded;
};

template <int W>
__global__ void __launch_bounds__(256)
    power_argmax_screen_pack_kernel(const float* __restrict__ from,
                                    const float* __restrict__ heights, int D, Packed to) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t step = int64_t(gridDim.x) * 8;
  for (int64_t row = int64_t(blockIdx.x) * 8 + threadIdx.x / 32; row < to.padded; row += step) {
    uint16_t* tile = to.rows + row / 64 * 64 * W;
    double squares = 0.0, rest = 0.0;
    for (int d = lane; d < W; d += 32) {
      const float a = row < to.n && d < D ? from[row * D + d] : 0.0f;
      const uint16_t bits = bfloat16_bits(a);
      const double left = double(a) - double(bfloat16_value(bits));
      squares = exact_fma(double(a), double(a), squares);
      rest = exact_fma(left, left, rest);
      tile[chunk_place<W>(int(row % 64), d / 8) + d % 8] = bits;
    }
#pragma unroll
    for (int k = 16; k > 0; k /= 2) {
      squares = __dadd_rn(squares, __shfl_xor_sync(~0u, squares, k));
      rest = __dadd_rn(rest, __shfl_xor_sync(~0u, rest, k));
    }
    const float h = heights && row < to.n ? heights[row] : 0.0f;
    const float size = h == -INFINITY ? 0.0f : fabsf(h);  // such a target has no score to be off by
    const float norm = norm_above(__dmul_rn(lane == 0 ? squares : rest, 1.000001));
    float* out = &to.norms[row].norm;  // three floats, a lane each
    if (lane < 3) out[lane] = lane == 2 ? size : norm;
  }
}

// The largest norms of each group; NaN counts as infinite.
__global__ void __launch_bounds__(256)
    power_argmax_screen_groups_kernel(const ScreenNorms* __restrict__ rows, int groups,
                                      ScreenNorms* __restrict__ norms) {
  const int lane = int(threadIdx.x) % 32;
  const int group = int(blockIdx.x) * 8 + int(threadIdx.x) / 32;
  if (group >= groups) return;  // the whole warp
  const ScreenNorms a = rows[int64_t(group) * kGroup + lane];
  const ScreenNorms b = rows[int64_t(group) * kGroup + 32 + lane];
  float most[3] = {a.norm > b.norm ? a.norm : b.norm, a.rest > b.rest ? a.rest : b.rest,
                   a.height > b.height ? a.height : b.height};
  const float sum = a.norm + a.rest + a.height + b.norm + b.rest + b.height;
  if (isnan(sum)) most[0] = INFINITY;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
#pragma unroll
    for (int k = 16; k > 0; k /= 2) most[i] = fmaxf(most[i], __shfl_xor_sync(~0u, most[i], k));
  }
  if (lane == 0) norms[group] = {most[0], most[1], most[2]};
}

__global__ void __launch_bounds__(256)
    power_argmax_screen_heights_kernel(const float* __restrict__ heights, int64_t N, int64_t padded,
                                       float* __restrict__ to) {
  const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (i >= padded) return;
  const float h = i < N ? heights[i] : -INFINITY;
  to[i / 2 * 4 + i % 2] = h;  // pair after pair, each twice
  to[i / 2 * 4 + i % 2 + 2] = h;
}

// ---- the screen: the largest sum of each group of 64 targets

template <int W>
constexpr int kStages = W > 64 ? 2 : 3;  // as many as 48 KB hold

template <int W>
struct alignas(16) GroupStage {
  uint16_t y[kGroup * W];
  float heights[2 * kGroup];
};

// Brings the groups of a share, one after the other, into the ring.
template <int W>
struct GroupFetcher {
  GroupStage<W>* ring;
  const uint16_t* y;
  const float* heights;
  int left, stage;

  __device__ __forceinline__ void operator()() {
    const int t = int(threadIdx.x);
    if (left > 0) {
      GroupStage<W>& slot = ring[stage];
#pragma unroll
      for (int i = 0; i < kGroup * W; i += 8 * kThreads)
        cp_async16(slot.y + i + 8 * t, y + i + 8 * t);
      if (t < kGroup / 2) cp_async16(slot.heights + 4 * t, heights + 4 * t);
      stage = stage == kStages<W> - 1 ? 0 : stage + 1;
      y += kGroup * W;
      heights += 2 * kGroup;
      --left;
    }
    cp_async_commit();
  }
};

// Sums of 32 samples and 8 targets at a time; only their maximum is kept.
template <int W>
__device__ __forceinline__ void screen_group(const GroupStage<W>& stage,
                                             const uint32_t (&a)[2][W / 16][4],
                                             float (&top)[2][2]) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < kGroup / 8; ++n) {
    const float4 h = *reinterpret_cast<const float4*>(stage.heights + 16 * n + lane % 4 * 4);
    const float start[4] = {h.x, h.y, h.z, h.w};
    float sum[2][4] = {};
#pragma unroll
    for (int k = 0; k < W / 32; ++k) {  // one load: 8 targets in 32 dimensions
      uint32_t b[4];
      ldmatrix_x4(b, stage.y + chunk_place<W>(8 * n + lane % 8, 4 * k + lane / 8));
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        if (k == 0) {
          mma_bf16_16816(sum[m], a[m][0], b[0], b[1], start);
        } else {
          mma_bf16_16816(sum[m], a[m][2 * k], b[0], b[1], sum[m]);
        }
        mma_bf16_16816(sum[m], a[m][2 * k + 1], b[2], b[3], sum[m]);
      }
    }
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        top[m][i] = fmaxf(top[m][i], fmaxf(sum[m][2 * i], sum[m][2 * i + 1]));
      }
    }
  }
}

template <int W>
__global__ void __launch_bounds__(kThreads, W > 64 ? 2 : 3)
    power_argmax_screen_kernel(ScreenProblem p) {
  OTCUDA_SHARED(ring, GroupStage<W>[kStages<W>]);
  const int t = int(threadIdx.x), lane = t % 32, warp = t / 32;
  const int share = (p.group_count + int(gridDim.y) - 1) / int(gridDim.y);
  const int first = min(int(blockIdx.y) * share, p.group_count);
  const int last = min(first + share, p.group_count);
  uint32_t a[2][W / 16][4];  // 32 samples stay in registers; they come in two halves of 64 rows
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint16_t* from = p.x + (int64_t(blockIdx.x) * kRows + half * 64) * W;
#pragma unroll
    for (int i = 0; i < 64 * W; i += 8 * kThreads) {
      cp_async16(ring[half].y + i + 8 * t, from + i + 8 * t);
    }
  }
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int k = 0; k < W / 16; ++k) {
      const int row = warp % 2 * 32 + m * 16 + lane % 16;
      ldmatrix_x4(a[m][k], ring[warp / 2].y + chunk_place<W>(row, 2 * k + lane / 16));
    }
  }
  __syncthreads();  // before the samples make room for targets

  GroupFetcher<W> fetch{ring, p.y + int64_t(first) * kGroup * W,
                        p.heights + int64_t(first) * 2 * kGroup, last - first, 0};
  for (int i = 0; i < kStages<W> - 1; ++i) fetch();
  int stage = 0;
  float* out = p.maxima + int64_t(first) * p.stride + int64_t(blockIdx.x) * kRows + warp * 32;
  for (int group = first; group < last; ++group) {
    cp_async_wait<kStages<W> - 2>();
    __syncthreads();  // all see this group, and all are done with the slot that fetch fills
    fetch();
    float top[2][2] = {{-INFINITY, -INFINITY}, {-INFINITY, -INFINITY}};
    screen_group<W>(ring[stage], a, top);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float most = top[i / 2][i % 2];
      most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
      most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
      if (lane % 4 == 0) out[i * 8 + lane / 4] = most;
    }
    out += p.stride;
    stage = stage == kStages<W> - 1 ? 0 : stage + 1;
  }
}

// ---- the certificate, and the chain for what it leaves

struct SelectProblem {
  const float* x;        // [rows, D]
  const float* y;        // panels
  const float* heights;  // in panel order
  int* fallbacks;        // how many
  int* fallback_rows;    // which
  Winners<float> winners;
};

struct Selection {
  float lower[kSelectThreads / 32][kSelectRows];  // what the best score surely reaches, by warp
  int count[kSelectRows];
  int groups[kSelectRows][kCandidates];
};

// The chain for all targets of the groups that were left, by a warp; false if none had a score.
__device__ __forceinline__ bool rescore(const SelectProblem& p, int D, int row, const int* groups,
                                        int count) {
  const int lane = int(threadIdx.x) % 32;
  Key best = 0;
  float value = 0.0f;
  for (int k = 0; k < 2 * count; ++k) {
    const int64_t i = int64_t(groups[k / 2]) * kGroup + k % 2 * 32 + lane;
    const int64_t panel = i / kTile * kTile;
    const int place = panel_place(int(i % kTile));
    const float s =
        score<1>(p.x + int64_t(row) * D, p.y + panel * D + place, p.heights[panel + place], D);
    const Key key = s > -INFINITY ? key_of(s, int(i)) : 0;  // padding scores -inf or NaN
    if (key > best) {
      best = key;
      value = s;
    }
  }
  Key most = best;
#pragma unroll
  for (int k = 16; k > 0; k /= 2) most = max(most, __shfl_xor_sync(~0u, most, k));
  if (most == 0) return false;
  if (best == most) publish(p.winners, row, value, int64_t(~unsigned(most)));
  return true;
}

__global__ void __launch_bounds__(kSelectThreads)
    power_argmax_screen_select_kernel(ScreenProblem screen, SelectProblem p) {
  OTCUDA_SHARED(shared, Selection[1]);
  Selection& s = shared[0];
  constexpr int kWarps = kSelectThreads / 32;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int first = int(blockIdx.x) * kSelectRows, row = first + lane;
  const ScreenNorms x = screen.x_norms[row];  // the last block of rows is padded
  const float* maxima = screen.maxima + row;
  float lower = -INFINITY;
  for (int g = warp; g < screen.group_count; g += kWarps) {
    const float error = screen_error(x, screen.groups[g], screen.D);
    lower = fmaxf(lower, maxima[int64_t(g) * screen.stride] - error);
  }
  s.lower[warp][lane] = lower;
  if (warp == 0) s.count[lane] = 0;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kWarps; ++w) lower = fmaxf(lower, s.lower[w][lane]);
  for (int g = warp; g < screen.group_count; g += kWarps) {
    const float error = screen_error(x, screen.groups[g], screen.D);
    if (maxima[int64_t(g) * screen.stride] + error < lower) continue;  // NaN stays
    const int k = atomicAdd(&s.count[lane], 1);
    if (k < kCandidates) s.groups[lane][k] = g;
  }
  __syncthreads();
  for (int r = warp; r < kSelectRows && first + r < screen.rows; r += kWarps) {
    const int count = s.count[r];
    const bool certain = __shfl_sync(~0u, lower, r) > -INFINITY && count <= kCandidates;
    if (certain && rescore(p, screen.D, first + r, s.groups[r], count)) continue;
    if (lane == 0) p.fallback_rows[atomicAdd(p.fallbacks, 1)] = first + r;
  }
}

// Samples without a certificate, as panels for the kernels of power_argmax.cu.
__global__ void __launch_bounds__(256)
    power_argmax_screen_gather_kernel(const float* __restrict__ x, int D,
                                      const int* __restrict__ count, const int* __restrict__ rows,
                                      float* __restrict__ panels) {
  const int lane = int(threadIdx.x) % 32;
  const int padded = (*count + kTile - 1) / kTile * kTile;
  for (int k = int(blockIdx.x) * 8 + int(threadIdx.x) / 32; k < padded; k += int(gridDim.x) * 8) {
    float* to = panels + int64_t(k / kTile) * kTile * D + panel_place(k % kTile);
    for (int d = lane; d < D; d += 32) {
      to[int64_t(d) * kTile] = k < *count ? x[int64_t(rows[k]) * D + d] : 0.0f;
    }
  }
}

// ---- launchers

int64_t width_of(int64_t D) { return D <= 32 ? 32 : D <= 64 ? 64 : 128; }

struct ScreenScratch {
  int64_t rows, padded_N, groups;
  int* fallbacks;
  uint16_t *x16, *y16;
  ScreenNorms *x_norms, *y_norms, *group_norms;
  float *heights, *maxima, *panel_heights;
  int* fallback_rows;
  Panels x, y;
  Key* keys;

  // rows: of a chunk, a multiple of kRows.
  ScreenScratch(Workspace* workspace, int64_t chunk, int64_t N, int64_t D)
      : rows(chunk),
        padded_N(ceil_div(N, kGroup) * kGroup),
        groups(ceil_div(N, kGroup)),
        x{nullptr, chunk, D},
        y{nullptr, N, D} {
    const int64_t W = width_of(D);
    fallbacks = workspace->take<int>(1);
    y16 = workspace->take<uint16_t>(padded_N * W);
    y_norms = workspace->take<ScreenNorms>(padded_N);
    group_norms = workspace->take<ScreenNorms>(groups);
    heights = workspace->take<float>(2 * padded_N);
    y.data = workspace->take<float>(y.floats());
    panel_heights = workspace->take<float>(y.panels() * kTile);
    x16 = workspace->take<uint16_t>(rows * W);
    x_norms = workspace->take<ScreenNorms>(rows);
    maxima = workspace->take<float>(rows * groups);
    fallback_rows = workspace->take<int>(rows);
    x.data = workspace->take<float>(x.floats());
    keys = workspace->take<Key>(rows);
  }
};

int64_t chunk_rows(int64_t B, int64_t N) {
  const int64_t most = kMostMaximaBytes / (4 * ceil_div(N, kGroup)) / kRows;
  return kRows * std::clamp<int64_t>(std::min(most, ceil_div(B, kRows)), 1, 1 << 13);
}

template <int W>
void launch_pack(const float* rows, const float* heights, int D, const Packed& to,
                 cudaStream_t stream) {
  const int64_t blocks = std::min<int64_t>(ceil_div(to.padded, 8), 16 * processors());
  OTCUDA_LAUNCH((power_argmax_screen_pack_kernel<W>), dim3{unsigned(blocks)}, dim3{256}, 0, stream,
                rows, heights, D, to);
  check_launch("power_argmax, packing for the screen");
}

template <int W>
void launch_screen(const ScreenProblem& p, cudaStream_t stream) {
  const int64_t row_blocks = ceil_div(p.rows, kRows);
  const int64_t wanted = kBlocksPerProcessor * processors() / row_blocks;
  const int64_t shares = std::clamp<int64_t>(wanted, 1, std::min(p.group_count, 65535));
  OTCUDA_LAUNCH((power_argmax_screen_kernel<W>), (dim3{unsigned(row_blocks), unsigned(shares), 1}),
                dim3{kThreads}, 0, stream, p);
  check_launch("power_argmax, screen");
}

void pack_targets(const TensorView& y, const TensorView& h, const ScreenScratch& s,
                  cudaStream_t stream) {
  const int64_t N = y.shape[0], D = y.shape[1];
  with_width(D, [&](auto width) {
    launch_pack<decltype(width)::value>(y.read<float>(), h.read<float>(), int(D),
                                        {s.y16, s.y_norms, N, s.padded_N}, stream);
  });
  OTCUDA_LAUNCH(power_argmax_screen_groups_kernel, dim3{unsigned(ceil_div(s.groups, 8))}, dim3{256},
                0, stream, s.y_norms, int(s.groups), s.group_norms);
  check_launch("power_argmax, groups");
  OTCUDA_LAUNCH(power_argmax_screen_heights_kernel, dim3{unsigned(ceil_div(s.padded_N, 256))},
                dim3{256}, 0, stream, h.read<float>(), N, s.padded_N, s.heights);
  check_launch("power_argmax, heights");
  pack_panels(y.read<float>(), s.y, stream);
  pack_heights(h.read<float>(), N, s.panel_heights, stream);
}

void screen_chunk(const float* x, int64_t rows, const Winners<float>& winners,
                  const ScreenScratch& s, ScreenBy by, cudaStream_t stream) {
  const int D = int(s.y.D);
  check_cuda(cudaMemsetAsync(s.fallbacks, 0, sizeof(int), stream), "power_argmax");
  const ScreenProblem screen{s.x16,    s.y16,     s.heights,   s.x_norms,     s.group_norms,
                             s.maxima, int(rows), int(s.rows), int(s.groups), D};
  with_width(D, [&](auto width) {
    launch_pack<decltype(width)::value>(x, nullptr, D, {s.x16, s.x_norms, rows, s.rows}, stream);
    if (by == ScreenBy::mma) launch_screen<decltype(width)::value>(screen, stream);
  });
  if (by == ScreenBy::wgmma) launch_wgmma_screen(screen, stream);
  const SelectProblem select{x, s.y.data, s.panel_heights, s.fallbacks, s.fallback_rows, winners};
  OTCUDA_LAUNCH(power_argmax_screen_select_kernel, dim3{unsigned(ceil_div(rows, kSelectRows))},
                dim3{kSelectThreads}, 0, stream, screen, select);
  check_launch("power_argmax, selection");
  OTCUDA_LAUNCH(power_argmax_screen_gather_kernel, dim3{unsigned(4 * processors())}, dim3{256}, 0,
                stream, x, D, s.fallbacks, s.fallback_rows, s.x.data);
  check_launch("power_argmax, fallback");
  const Panels panels{s.x.data, rows, s.x.D};
  Winners<float> by_place = winners;
  by_place.places = s.fallback_rows;
  panels_argmax(panels, s.y, s.panel_heights, s.keys, by_place, stream, s.fallbacks);
}

}  // namespace

bool power_argmax_screen_fits(DType dtype, int64_t B, int64_t N, int64_t D) {
  return dtype == DType::f32 && B >= 1 && N <= kScreenMostN && D >= 1 && D <= kScreenMostD;
}

int64_t power_argmax_screen_workspace(int64_t B, int64_t N, int64_t D) {
  Workspace count;
  ScreenScratch(&count, chunk_rows(B, N), N, D);
  return count.used();
}

void power_argmax_screen(const TensorView& x, const TensorView& y, const TensorView& h,
                         const TensorView& value, const TensorView& index,
                         const TensorView& workspace, uintptr_t stream, ScreenBy by) {
  const int64_t B = x.shape[0], N = y.shape[0], D = x.shape[1];
  OTCUDA_CHECK(power_argmax_screen_fits(x.dtype, B, N, D),
               "the screen of power_argmax takes float32, N <= 2^24 and 1 <= D <= 128; got y " +
                   shape_text(y));
  const DeviceGuard guard(x);
  if (by == ScreenBy::wgmma && !power_argmax_has_wgmma(x.device_index)) {
    throw DeviceError("power_argmax: this device or this build has no wgmma, sm_90a");
  }
  Workspace pieces("power_argmax", workspace);
  const ScreenScratch scratch(&pieces, chunk_rows(B, N), N, D);
  pack_targets(y, h, scratch, stream_of(stream));
  for (int64_t b = 0; b < B; b += scratch.rows) {
    screen_chunk(x.read<float>() + b * D, std::min(scratch.rows, B - b),
                 {value.write<float>() + b, index.write<int64_t>() + b, nullptr}, scratch, by,
                 stream_of(stream));
  }
}

}  // namespace otcuda::cuda
