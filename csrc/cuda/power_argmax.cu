// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "common/power_argmax.h"
#include "cuda/device.h"
#include "cuda/power_argmax.h"
#include "cuda/power_argmax_chain.cuh"
#include "cuda/power_argmax_tile.cuh"

namespace otcuda::cuda {
namespace {

constexpr int64_t kMostPackedBytes = int64_t(256) << 20;  // of samples packed at a time
constexpr int64_t kMostChunkPanels = 1 << 17;

// ---- packing

constexpr int kPackSide = 32;

// A 32 x 32 piece through shared memory: read along d, written along the row.
__global__ void __launch_bounds__(256) pack_panels_kernel(const float* __restrict__ rows, int64_t n,
                                                          int D, float* __restrict__ panels) {
  OTCUDA_SHARED(piece, float[kPackSide][kPackSide + 1]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t row0 = int64_t(blockIdx.x) * kPackSide;
  const int d0 = int(blockIdx.y) * kPackSide;
  for (int r = warp; r < kPackSide; r += 8) {
    const bool inside = row0 + r < n && d0 + lane < D;
    piece[r][lane] = inside ? rows[(row0 + r) * D + d0 + lane] : 0.0f;
  }
  __syncthreads();
  const int64_t row = row0 + lane;
  float* out = panels + row / kTile * kTile * D + panel_place(int(row % kTile));
  for (int d = warp; d < kPackSide; d += 8) {
    if (d0 + d < D) out[int64_t(d0 + d) * kTile] = piece[lane][d];
  }
}

__global__ void __launch_bounds__(kTile)
    pack_heights_kernel(const float* __restrict__ heights, int64_t N, float* __restrict__ packed) {
  const int64_t i = int64_t(blockIdx.x) * kTile + threadIdx.x;
  packed[int64_t(blockIdx.x) * kTile + panel_place(int(threadIdx.x))] =
      i < N ? heights[i] : -INFINITY;
}

// ---- the tile kernel: per sample the best score and the group of eight targets it came from

// Of the panels so far; strictly better, so the earlier panel keeps a tie.
struct BestPanel {
  float best[kSide];
  int panel[kSide];

  __device__ __forceinline__ void operator()(const Sums& sum, const Vector8& h, int here) {
#pragma unroll
    for (int r = 0; r < kSide; ++r) {
      const float top = best_of_eight(sum[r], h);
      if (top > best[r]) {
        best[r] = top;
        panel[r] = here;
      }
    }
  }
};

__global__ void __launch_bounds__(kThreads, 2)
    power_argmax_tile_kernel(const float* __restrict__ x, const float* __restrict__ y,
                             const float* __restrict__ heights, int rows, int panels, int D,
                             Key* __restrict__ keys, const int* __restrict__ limit) {
  OTCUDA_SHARED(ring, Stage[kStages]);
  if (limit && int(blockIdx.x) * kTile >= *limit) return;  // all threads
  const Share share(panels);
  BestPanel found;
#pragma unroll
  for (int r = 0; r < kSide; ++r) {
    found.best[r] = -INFINITY;
    found.panel[r] = share.first;
  }
  for_each_panel(ring, x, y, heights, share, D, found);

  const int tx = targets_of_thread(), ty = samples_of_thread();
#pragma unroll  // static indices keep best[] in registers
  for (int r = 0; r < kSide; ++r) {
    Key key = found.best[r] > -INFINITY
                  ? key_of(found.best[r], found.panel[r] * (kTile / kSide) + tx)
                  : 0;
#pragma unroll
    for (int step = 1; step < 8; step *= 2) key = max(key, __shfl_xor_sync(~0u, key, step));
    const int row = int(blockIdx.x) * kTile + ty * kSide + r;
    if (threadIdx.x % 8 == 0 && row < rows && key != 0) atomicMax(&keys[row], key);
  }
}

// ---- which of the eight: the same chain again, by eight lanes a sample

__global__ void __launch_bounds__(kThreads, 2)
    power_argmax_winner_kernel(const float* __restrict__ x, const float* __restrict__ y,
                               const float* __restrict__ heights, int rows, int64_t N, int D,
                               const Key* __restrict__ keys, Winners<float> winners,
                               const int* __restrict__ limit) {
  const int lane = int(threadIdx.x) % 8;
  const int64_t row = int64_t(blockIdx.x) * (kThreads / 8) + threadIdx.x / 8;
  if (row >= (limit ? *limit : rows)) return;  // all eight lanes of a sample
  const unsigned team = 0xFFu << (threadIdx.x % 32 / 8 * 8);
  const float* x_panel = x + row / kTile * kTile * D + panel_place(int(row % kTile));
  const Key key = keys[row];
  const unsigned ordered = unsigned(key >> 32);
  const float best = __uint_as_float(ordered & 0x80000000u ? ordered & 0x7FFFFFFFu : ~ordered);

  // Without a key every score is -inf or NaN: the first that is no NaN wins, and none if x holds a
  // NaN.
  bool hopeless = false;
  for (int d = lane; key == 0 && d < D; d += 8) hopeless |= isnan(x_panel[int64_t(d) * kTile]);
  hopeless = __ballot_sync(team, hopeless) != 0;
  const int64_t groups = hopeless ? 0 : (N + kSide - 1) / kSide;
  for (int64_t group = key ? int64_t(~unsigned(key)) : 0; group < groups; ++group) {
    const int64_t i = group * kSide + lane;
    const int64_t at = i / kTile * kTile;
    const int place = panel_place(int(i % kTile));
    const float s = score<kTile>(x_panel, y + at * D + place, heights[at + place], D);
    const unsigned wins = __ballot_sync(team, i < N && (key ? s == best : !isnan(s)));
    if (wins == 0) continue;
    if (int(threadIdx.x % 32) == __ffs(int(wins)) - 1) {
      publish(winners, row, s, i);
    }
    return;
  }
  if (lane == 0) publish(winners, row, __uint_as_float(0x7FC00000u), -1);
}

// ---- float64: one thread a sample, plain chains; the targets are shared out over gridDim.y

constexpr int kPlainThreads = 128;
constexpr int kPlainTargets = 4;
constexpr int64_t kPlainBlocks = 1024;

__global__ void __launch_bounds__(kPlainThreads)
    power_argmax_plain_kernel(const double* __restrict__ x, const double* __restrict__ y,
                              const double* __restrict__ h, int64_t rows, int64_t N, int D,
                              double* __restrict__ value, int64_t* __restrict__ index) {
  const int64_t row = int64_t(blockIdx.x) * kPlainThreads + threadIdx.x;
  if (row >= rows) return;
  const int64_t share = (N + gridDim.y - 1) / gridDim.y;
  const int64_t first = min(int64_t(blockIdx.y) * share, N), last = min(first + share, N);
  const double* x_row = x + row * D;
  double best = NAN;
  int64_t best_index = -1;
  for (int64_t i0 = first; i0 < last; i0 += kPlainTargets) {
    double s[kPlainTargets] = {};
    for (int d = 0; d < D; ++d) {
#pragma unroll
      for (int k = 0; k < kPlainTargets; ++k) {
        s[k] = exact_fma(x_row[d], y[min(i0 + k, last - 1) * D + d], s[k]);
      }
    }
#pragma unroll
    for (int k = 0; k < kPlainTargets; ++k) {
      const int64_t i =
          min(i0 + k, last - 1);  // the last target again: it cannot win against itself
      s[k] = __dadd_rn(s[k], h[i]);
      if (power_argmax_beats(s[k], best)) {
        best = s[k];
        best_index = i;
      }
    }
  }
  value[blockIdx.y * rows + row] = best;
  index[blockIdx.y * rows + row] = best_index;
}

// The shares in order, so that the lowest index keeps a tie.
__global__ void __launch_bounds__(kPlainThreads)
    power_argmax_merge_kernel(const double* __restrict__ values,
                              const int64_t* __restrict__ indices, int64_t rows, int shares,
                              Winners<double> winners) {
  const int64_t row = int64_t(blockIdx.x) * kPlainThreads + threadIdx.x;
  if (row >= rows) return;
  double best = NAN;
  int64_t best_index = -1;
  for (int k = 0; k < shares; ++k) {
    const double s = values[k * rows + row];
    if (power_argmax_beats(s, best)) {
      best = s;
      best_index = indices[k * rows + row];
    }
  }
  publish(winners, row, best, best_index);
}

// ---- launchers

// Samples are packed in chunks of whole panels, as many as the workspace holds.
struct TileScratch {
  Panels x, y;
  float* heights;
  Key* keys;

  TileScratch(Workspace* workspace, int64_t rows, int64_t N, int64_t D)
      : x{nullptr, rows, D}, y{nullptr, N, D} {
    y.data = workspace->take<float>(y.floats());
    heights = workspace->take<float>(y.panels() * kTile);
    x.data = workspace->take<float>(x.floats());
    keys = workspace->take<Key>(rows);
  }
};

int64_t chunk_rows(int64_t bytes, int64_t B, int64_t D) {
  const int64_t panel_bytes =
      kTile * int64_t(D * sizeof(float) + sizeof(Key));  // of 256 bytes each
  const int64_t most = std::min(kMostChunkPanels, ceil_div(B, kTile));
  return std::clamp<int64_t>(bytes / panel_bytes, 1, most) * kTile;
}

struct PlainScratch {
  double* values;
  int64_t* indices;

  PlainScratch(Workspace* workspace, int64_t B, int64_t N) {
    values = workspace->take<double>(plain_scratch(B, N));
    indices = workspace->take<int64_t>(plain_scratch(B, N));
  }
};

void argmax_f32(const TensorView& x, const TensorView& y, const TensorView& h,
                const TensorView& value, const TensorView& index, Workspace* workspace,
                cudaStream_t stream) {
  const int64_t B = x.shape[0], D = x.shape[1], N = y.shape[0];
  Workspace fixed;
  TileScratch(&fixed, 0, N, D);
  const int64_t rows = chunk_rows(workspace->left() - fixed.used(), B, D);
  const TileScratch scratch(workspace, rows, N, D);
  pack_panels(y.read<float>(), scratch.y, stream);
  pack_heights(h.read<float>(), N, scratch.heights, stream);
  for (int64_t b = 0; b < B; b += scratch.x.rows) {
    const Panels chunk{scratch.x.data, std::min(scratch.x.rows, B - b), D};
    pack_panels(x.read<float>() + b * D, chunk, stream);
    panels_argmax(chunk, scratch.y, scratch.heights, scratch.keys,
                  {value.write<float>() + b, index.write<int64_t>() + b, nullptr}, stream);
  }
}

void argmax_f64(const TensorView& x, const TensorView& y, const TensorView& h,
                const TensorView& value, const TensorView& index, Workspace* workspace,
                cudaStream_t stream) {
  const PlainScratch scratch(workspace, x.shape[0], y.shape[0]);
  plain_argmax({x.read<double>(), y.read<double>(), h.read<double>(), x.shape[0], y.shape[0],
                x.shape[1], scratch.values, scratch.indices},
               {value.write<double>(), index.write<int64_t>(), nullptr}, stream);
}

}  // namespace

void check_sizes(const char* op, const TensorView& y) {
  OTCUDA_CHECK(y.shape[0] <= int64_t(1) << 31 && y.shape[1] <= int64_t(1) << 18,
               std::string(op) + " on CUDA takes N <= 2^31 and D <= 2^18; got y " + shape_text(y));
}

void pack_panels(const float* rows, const Panels& panels, cudaStream_t stream) {
  if (panels.D == 0) return;
  const dim3 grid{unsigned(panels.panels() * (kTile / kPackSide)),
                  unsigned(ceil_div(panels.D, kPackSide)), 1};
  OTCUDA_LAUNCH(pack_panels_kernel, grid, dim3{256}, 0, stream, rows, panels.rows, int(panels.D),
                panels.data);
  check_launch("power_argmax, packing");
}

void pack_heights(const float* heights, int64_t N, float* packed, cudaStream_t stream) {
  const dim3 grid{unsigned(ceil_div(N, kTile))};
  OTCUDA_LAUNCH(pack_heights_kernel, grid, dim3{kTile}, 0, stream, heights, N, packed);
  check_launch("power_argmax, packing");
}

void panels_argmax(const Panels& x, const Panels& y, const float* packed_heights, PanelKey* keys,
                   const Winners<float>& winners, cudaStream_t stream, const int* limit) {
  const dim3 grid = tile_grid(x, y);
  check_cuda(cudaMemsetAsync(keys, 0, size_t(x.rows) * sizeof(Key), stream), "power_argmax");
  OTCUDA_LAUNCH(power_argmax_tile_kernel, grid, dim3{kThreads}, 0, stream, x.data, y.data,
                packed_heights, int(x.rows), int(y.panels()), int(x.D), keys, limit);
  check_launch("power_argmax");
  const dim3 teams{unsigned(ceil_div(x.rows, kThreads / 8))};
  OTCUDA_LAUNCH(power_argmax_winner_kernel, teams, dim3{kThreads}, 0, stream, x.data, y.data,
                packed_heights, int(x.rows), y.rows, int(x.D), keys, winners, limit);
  check_launch("power_argmax");
}

// Fewer samples are split into more shares: under kPlainBlocks blocks of samples, samples times
// shares stay under kPlainBlocks * kPlainThreads.
int64_t plain_scratch(int64_t most_samples, int64_t N) {
  const int64_t split =
      std::min(kPlainBlocks * kPlainThreads, most_samples * ceil_div(N, kPlainTargets));
  return std::max(most_samples, split);
}

void plain_argmax(const PlainProblem& p, const Winners<double>& winners, cudaStream_t stream) {
  const int64_t shares =
      shares_of(ceil_div(p.B, kPlainThreads), ceil_div(p.N, kPlainTargets), kPlainBlocks);
  const dim3 grid{unsigned(ceil_div(p.B, kPlainThreads)), unsigned(shares), 1};
  OTCUDA_LAUNCH(power_argmax_plain_kernel, grid, dim3{kPlainThreads}, 0, stream, p.x, p.y, p.h, p.B,
                p.N, int(p.D), p.values, p.indices);
  check_launch("power_argmax");
  OTCUDA_LAUNCH(power_argmax_merge_kernel, dim3{grid.x}, dim3{kPlainThreads}, 0, stream, p.values,
                p.indices, p.B, int(shares), winners);
  check_launch("power_argmax");
}

int64_t power_argmax_workspace(DType dtype, int64_t B, int64_t N, int64_t D) {
  Workspace count;
  if (dtype == DType::f64) {
    PlainScratch(&count, B, N);
  } else {
    TileScratch(&count, chunk_rows(kMostPackedBytes, B, D), N, D);
  }
  return count.used();
}

void power_argmax(const TensorView& x, const TensorView& y, const TensorView& h,
                  const TensorView& value, const TensorView& index, const TensorView& workspace,
                  uintptr_t stream) {
  check_sizes("power_argmax", y);
  if (x.shape[0] == 0) return;
  const DeviceGuard guard(x);
  Workspace pieces("power_argmax", workspace);
  (x.dtype == DType::f64 ? argmax_f64 : argmax_f32)(x, y, h, value, index, &pieces,
                                                    stream_of(stream));
}

}  // namespace otcuda::cuda
