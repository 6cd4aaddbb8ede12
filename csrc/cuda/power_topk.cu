// SPDX-License-Identifier: Apache-2.0
// The best score of each eight targets first, then the best k of these groups, then the best k of
// their targets: k targets that come before one in order lie in k groups that come before its own.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "common/power_argmax.h"
#include "common/power_topk.h"
#include "cuda/device.h"
#include "cuda/power_argmax.h"
#include "cuda/power_argmax_chain.cuh"
#include "cuda/power_argmax_tile.cuh"
#include "cuda/power_topk.h"

namespace otcuda::cuda {
namespace {

constexpr unsigned kAll = ~0u;
constexpr int kGroup = kSide;    // targets that share one maximum
constexpr int kSelectWarps = 8;  // of a block, one a sample
constexpr int kPlainThreads = 128;
constexpr int64_t kPlainBlocks = 1024;
constexpr int64_t kMostPackedBytes = int64_t(256) << 20;  // of samples packed at a time
constexpr int64_t kMostMaximaBytes = int64_t(32) << 20;   // they stay in L2
constexpr int64_t kMostRows = int64_t(1) << 24;           // of a chunk

// ---- the best of each group, [rows][groups]

// Eight lanes of a warp write 32 bytes that lie together; there is room for samples of whole
// panels.
struct StoreBest {
  float* to;  // of the first sample of this thread, group targets_of_thread() of panel 0
  int64_t groups;

  __device__ __forceinline__ void operator()(const Sums& sum, const Vector8& h, int panel) {
    float* own = to + int64_t(panel) * (kTile / kGroup);
#pragma unroll
    for (int r = 0; r < kSide; ++r) {
      *own = best_of_eight(sum[r], h);
      own += groups;
    }
  }
};

__global__ void __launch_bounds__(kThreads, 2)
    power_topk_maxima_kernel(const float* __restrict__ x, const float* __restrict__ y,
                             const float* __restrict__ heights, int panels, int D,
                             float* __restrict__ maxima) {
  OTCUDA_SHARED(ring, Stage[kStages]);
  const int row = int(blockIdx.x) * kTile + samples_of_thread() * kSide;
  const int64_t groups = int64_t(panels) * (kTile / kGroup);
  StoreBest store{maxima + row * groups + targets_of_thread(), groups};
  for_each_panel(ring, x, y, heights, Share(panels), D, store);
}

// float64: one thread a sample, plain chains; groups are shared out over gridDim.y.
__global__ void __launch_bounds__(kPlainThreads)
    power_topk_plain_maxima_kernel(const double* __restrict__ x, const double* __restrict__ y,
                                   const double* __restrict__ h, int64_t rows, int64_t N, int D,
                                   int64_t groups, double* __restrict__ maxima) {
  const int64_t row = int64_t(blockIdx.x) * kPlainThreads + threadIdx.x;
  if (row >= rows) return;
  const double* x_row = x + row * D;
  for (int64_t group = blockIdx.y; group < groups; group += gridDim.y) {
    const double* from[kGroup];
    double s[kGroup] = {}, most = -INFINITY;
#pragma unroll
    for (int k = 0; k < kGroup; ++k) from[k] = y + min(group * kGroup + k, N - 1) * D;
    for (int d = 0; d < D; ++d) {
#pragma unroll
      for (int k = 0; k < kGroup; ++k) s[k] = exact_fma(x_row[d], from[k][d], s[k]);
    }
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {  // the last target again, where there is none
      most = fmax(most, __dadd_rn(s[k], h[min(group * kGroup + k, N - 1)]));
    }
    maxima[row * groups + group] = most;
  }
}

// ---- lists

// The best so far in order, in the registers of a warp: place p belongs to lane p % 32. An empty
// place is -inf, which no score that enters is.
template <class T>
struct WarpList {
  static constexpr int kSlots = kMostTopk / 32;
  T score[kSlots];
  int index[kSlots];
  T last_score;  // at place k - 1
  int last_index;
  int k;

  __device__ __forceinline__ explicit WarpList(int places)
      : last_score(-INFINITY), last_index(-1), k(places) {
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) {
      score[slot] = -INFINITY;
      index[slot] = -1;
    }
  }

  // What lies at a place, for lanes whose places are of one slot.
  __device__ __forceinline__ T score_at(int place) const {
    return __shfl_sync(kAll, place < 32 ? score[0] : score[1], place % 32);
  }
  __device__ __forceinline__ int index_at(int place) const {
    return __shfl_sync(kAll, place < 32 ? index[0] : index[1], place % 32);
  }

  // The same target in all lanes.
  __device__ __forceinline__ void insert(T s, int i) {
    const int lane = int(threadIdx.x) % 32;
#pragma unroll
    for (int slot = kSlots - 1; slot >= 0; --slot) {  // down: what moves up is read before
      if (32 * slot >= k) continue;
      T above = __shfl_up_sync(kAll, score[slot], 1);
      int above_index = __shfl_up_sync(kAll, index[slot], 1);
      if (slot > 0) {
        const T carry = __shfl_sync(kAll, score[slot - 1], 31);
        const int carry_index = __shfl_sync(kAll, index[slot - 1], 31);
        above = lane == 0 ? carry : above;
        above_index = lane == 0 ? carry_index : above_index;
      }
      const bool is_first = slot == 0 && lane == 0;
      const bool stays = power_topk_before(score[slot], index[slot], s, i);
      const bool enters = is_first || power_topk_before(above, above_index, s, i);
      score[slot] = stays ? score[slot] : enters ? s : above;
      index[slot] = stays ? index[slot] : enters ? i : above_index;
    }
    last_score = score_at(k - 1);
    last_index = index_at(k - 1);
  }

  // A target of each lane; -inf and NaN are none.
  __device__ __forceinline__ void offer(T s, int i) {
    unsigned some = __ballot_sync(kAll, power_topk_before(s, i, last_score, last_index));
    for (; some != 0; some &= some - 1) {
      const int from = __ffs(int(some)) - 1;
      const T best = __shfl_sync(kAll, s, from);
      const int best_index = __shfl_sync(kAll, i, from);
      if (power_topk_before(best, best_index, last_score, last_index)) insert(best, best_index);
    }
  }
};

// ---- samples and targets as the two dtypes have them

struct PanelPair {
  const float *x, *y, *h;  // panels, heights in panel order

  __device__ __forceinline__ const float* sample(int64_t row, int D) const {
    return x + row / kTile * kTile * D + panel_place(int(row % kTile));
  }
  static constexpr int kStep = kTile;  // between the numbers of a sample
  __device__ __forceinline__ float of(const float* x_row, int64_t i, int D) const {
    const int64_t at = i / kTile * kTile;
    const int place = panel_place(int(i % kTile));
    return score<kTile>(x_row, y + at * D + place, h[at + place], D);
  }
};

struct RowPair {
  const double *x, *y, *h;

  __device__ __forceinline__ const double* sample(int64_t row, int D) const { return x + row * D; }
  static constexpr int kStep = 1;
  __device__ __forceinline__ double of(const double* x_row, int64_t i, int D) const {
    return power_argmax_score(x_row, y + i * D, h[i], D);
  }
};

// ---- a warp a sample: groups, targets, and what is left over

// Where the lists go: of `listed` places that are sought, `written` a sample; gap may be null.
template <class T>
struct Lists {
  T* value;
  int64_t* index;
  T* gap;
  int listed, written;
};

// Groups in ascending order, 128 at once.
template <class T>
__device__ __forceinline__ void offer_groups(const T* maxima, int groups, WarpList<T>* list) {
  constexpr int kEach = 4;
  const int first = kEach * (int(threadIdx.x) % 32);
  for (int begin = 0; begin < groups; begin += 32 * kEach) {
    T most[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int group = begin + first + k;
      most[k] = group < groups ? maxima[group] : T(-INFINITY);
    }
    const T best = fmax(fmax(most[0], most[1]), fmax(most[2], most[3]));
    if (!__any_sync(kAll, best > list->last_score)) continue;  // later: no tie enters
#pragma unroll
    for (int k = 0; k < kEach; ++k) list->offer(most[k], begin + first + k);
  }
}

// Targets of the best groups, four groups at once, until the next group cannot matter.
template <class Targets, class T>
__device__ __forceinline__ void offer_targets(const Targets& pair, const T* x_row, int64_t N, int D,
                                              const WarpList<T>& groups, WarpList<T>* list) {
  const int lane = int(threadIdx.x) % 32;
  for (int place = 0; place < groups.k; place += 4) {
    const int group = groups.index_at(place + lane / kGroup);
    const T most = groups.score_at(place);
    if (most < list->last_score) return;  // all lanes
    const int64_t i = int64_t(group) * kGroup + lane % kGroup;
    const T s = group >= 0 && i < N ? pair.of(x_row, i, D) : T(NAN);
    list->offer(s, int(i));
  }
}

// Scores of -inf are numbers, but enter no list: the first targets that have one take the places
// that are left.
template <class Targets, class T>
__device__ __forceinline__ void append_dead(const Targets& pair, const T* x_row, int64_t N, int D,
                                            WarpList<T>* list) {
  const int lane = int(threadIdx.x) % 32;
  int place = 0;
#pragma unroll
  for (int slot = 0; slot < WarpList<T>::kSlots; ++slot) {
    place += __popc(__ballot_sync(kAll, list->index[slot] >= 0));
  }
  if (place >= list->k) return;
  bool hopeless = false;  // one NaN, and all scores are
  for (int d = lane; d < D; d += 32) hopeless |= isnan(x_row[int64_t(d) * Targets::kStep]);
  if (__any_sync(kAll, hopeless)) return;
  for (int64_t begin = 0; begin < N && place < list->k; begin += 32) {
    const int64_t i = begin + lane;
    const T s = i < N ? pair.of(x_row, i, D) : T(NAN);
    unsigned dead = __ballot_sync(kAll, s == -INFINITY);
    for (; dead != 0; dead &= dead - 1, ++place) {
#pragma unroll  // static indices keep the list in registers
      for (int slot = 0; slot < WarpList<T>::kSlots; ++slot) {
        if (place == 32 * slot + lane) list->index[slot] = int(begin) + __ffs(int(dead)) - 1;
      }
    }
  }
}

template <class T>
using Pair = std::conditional_t<std::is_same_v<T, float>, PanelPair, RowPair>;

template <class T>
__global__ void __launch_bounds__(32 * kSelectWarps)
    power_topk_select_kernel(Pair<T> pair, const T* __restrict__ maxima, int64_t rows, int64_t N,
                             int D, int groups, Lists<T> lists) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t row = int64_t(blockIdx.x) * kSelectWarps + threadIdx.x / 32;
  if (row >= rows) return;  // all lanes
  const T* x_row = pair.sample(row, D);
  WarpList<T> best_groups(lists.listed), best(lists.listed);
  offer_groups(maxima + row * groups, groups, &best_groups);
  offer_targets(pair, x_row, N, D, best_groups, &best);
  append_dead(pair, x_row, N, D, &best);
#pragma unroll
  for (int slot = 0; slot < WarpList<T>::kSlots; ++slot) {
    const int place = 32 * slot + lane;
    if (place >= lists.written) continue;
    const bool there = best.index[slot] >= 0;
    lists.value[row * lists.written + place] = there ? best.score[slot] : T(NAN);
    lists.index[row * lists.written + place] = best.index[slot];
  }
  if (lists.gap == nullptr) return;
  const T second = best.score_at(1);
  if (lane == 0) {
    lists.gap[row] = best.index[0] >= 0 ? power_gap(best.score[0], second) : T(NAN);
  }
}

// ---- launchers

template <class T>
void select(const Pair<T>& pair, const T* maxima, int64_t rows, int64_t N, int D, int groups,
            const Lists<T>& lists, cudaStream_t stream) {
  OTCUDA_LAUNCH((power_topk_select_kernel<T>), dim3{unsigned(ceil_div(rows, kSelectWarps))},
                dim3{32 * kSelectWarps}, 0, stream, pair, maxima, rows, N, D, groups, lists);
  check_launch("power_topk");
}

// The lists of the samples from b on.
template <class T>
Lists<T> from(const Lists<T>& lists, int64_t b) {
  return {lists.value + b * lists.written, lists.index + b * lists.written,
          lists.gap == nullptr ? nullptr : lists.gap + b, lists.listed, lists.written};
}

// As many samples as `bytes` hold, `each` of them a sample; whole panels.
int64_t rows_in(int64_t bytes, int64_t each, int64_t B) {
  const int64_t most = std::min(kMostRows / kTile, ceil_div(B, kTile));
  return std::clamp<int64_t>(bytes / (each * kTile), 1, most) * kTile;
}

template <class T>
int64_t maxima_bytes(int64_t groups) {  // of a sample
  return groups * int64_t(sizeof(T));
}

// Samples of a chunk: as many as the workspace holds.
struct PanelScratch {
  Panels x, y;
  float *heights, *maxima;

  PanelScratch(Workspace* workspace, int64_t rows, int64_t N, int64_t D)
      : x{nullptr, rows, D}, y{nullptr, N, D} {
    y.data = workspace->take<float>(y.floats());
    heights = workspace->take<float>(y.panels() * kTile);
    x.data = workspace->take<float>(x.floats());
    maxima = workspace->take<float>(rows * groups());
  }
  int64_t groups() const { return y.panels() * (kTile / kGroup); }

  static int64_t best_rows(int64_t B, int64_t N, int64_t D) {
    const int64_t packed = std::max<int64_t>(1, D) * int64_t(sizeof(float));
    return std::min(rows_in(kMostMaximaBytes, maxima_bytes<float>(groups_of(N)), B),
                    rows_in(kMostPackedBytes, packed, B));
  }
  static int64_t rows_of(const Workspace& workspace, int64_t B, int64_t N, int64_t D) {
    Workspace fixed;
    PanelScratch(&fixed, 0, N, D);
    const int64_t each = D * int64_t(sizeof(float)) + maxima_bytes<float>(groups_of(N));
    return rows_in(workspace.left() - fixed.used(), each, B);
  }

 private:
  static int64_t groups_of(int64_t N) { return ceil_div(N, kTile) * (kTile / kGroup); }
};

struct RowScratch {
  double* maxima;

  RowScratch(Workspace* workspace, int64_t rows, int64_t N) {
    maxima = workspace->take<double>(rows * ceil_div(N, kGroup));
  }

  static int64_t rows_in_bytes(int64_t bytes, int64_t B, int64_t N) {
    return rows_in(bytes, maxima_bytes<double>(ceil_div(N, kGroup)), B);
  }
  static int64_t rows_of(const Workspace& workspace, int64_t B, int64_t N) {
    Workspace fixed;
    RowScratch(&fixed, 0, N);
    return rows_in_bytes(workspace.left() - fixed.used(), B, N);
  }
};

void topk_f32(const TensorView& x, const TensorView& y, const TensorView& h,
              const Lists<float>& lists, Workspace* workspace, cudaStream_t stream) {
  const int64_t B = x.shape[0], D = x.shape[1], N = y.shape[0];
  const PanelScratch scratch(workspace, PanelScratch::rows_of(*workspace, B, N, D), N, D);
  pack_panels(y.read<float>(), scratch.y, stream);
  pack_heights(h.read<float>(), N, scratch.heights, stream);
  for (int64_t b = 0; b < B; b += scratch.x.rows) {
    const Panels chunk{scratch.x.data, std::min(scratch.x.rows, B - b), D};
    pack_panels(x.read<float>() + b * D, chunk, stream);
    OTCUDA_LAUNCH(power_topk_maxima_kernel, tile_grid(chunk, scratch.y), dim3{kThreads}, 0, stream,
                  chunk.data, scratch.y.data, scratch.heights, int(scratch.y.panels()), int(D),
                  scratch.maxima);
    check_launch("power_topk");
    select<float>({chunk.data, scratch.y.data, scratch.heights}, scratch.maxima, chunk.rows, N,
                  int(D), int(scratch.groups()), from(lists, b), stream);
  }
}

void topk_f64(const TensorView& x, const TensorView& y, const TensorView& h,
              const Lists<double>& lists, Workspace* workspace, cudaStream_t stream) {
  const int64_t B = x.shape[0], D = x.shape[1], N = y.shape[0], groups = ceil_div(N, kGroup);
  const int64_t most = RowScratch::rows_of(*workspace, B, N);
  const RowScratch scratch(workspace, most, N);
  for (int64_t b = 0; b < B; b += most) {
    const int64_t rows = std::min(most, B - b);
    const RowPair pair{x.read<double>() + b * D, y.read<double>(), h.read<double>()};
    const int64_t blocks = ceil_div(rows, kPlainThreads);
    const dim3 grid{unsigned(blocks), unsigned(shares_of(blocks, groups, kPlainBlocks)), 1};
    OTCUDA_LAUNCH(power_topk_plain_maxima_kernel, grid, dim3{kPlainThreads}, 0, stream, pair.x,
                  pair.y, pair.h, rows, N, int(D), groups, scratch.maxima);
    check_launch("power_topk");
    select<double>(pair, scratch.maxima, rows, N, int(D), int(groups), from(lists, b), stream);
  }
}

// Places that are sought and written a sample, and where the gap goes.
struct Wanted {
  int listed, written;
  const TensorView* gap;
};

void run(const TensorView& x, const TensorView& y, const TensorView& h, const TensorView& value,
         const TensorView& index, const Wanted& wanted, const TensorView& workspace,
         uintptr_t stream) {
  check_sizes("power_topk", y);
  if (x.shape[0] == 0) return;
  const DeviceGuard guard(x);
  Workspace pieces("power_topk", workspace);
  const auto lists = [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return Lists<T>{value.write<T>(), index.write<int64_t>(),
                    wanted.gap == nullptr ? nullptr : wanted.gap->write<T>(), wanted.listed,
                    wanted.written};
  };
  if (x.dtype == DType::f64) {
    topk_f64(x, y, h, lists(static_cast<double*>(nullptr)), &pieces, stream_of(stream));
  } else {
    topk_f32(x, y, h, lists(static_cast<float*>(nullptr)), &pieces, stream_of(stream));
  }
}

}  // namespace

int64_t power_topk_workspace(DType dtype, int64_t B, int64_t N, int64_t D) {
  Workspace count;
  if (dtype == DType::f64) {
    RowScratch(&count, RowScratch::rows_in_bytes(kMostMaximaBytes, B, N), N);
  } else {
    PanelScratch(&count, PanelScratch::best_rows(B, N, D), N, D);
  }
  return count.used();
}

void power_topk(const TensorView& x, const TensorView& y, const TensorView& h,
                const TensorView& value, const TensorView& index, const TensorView& workspace,
                uintptr_t stream) {
  const int k = int(value.shape[1]);
  run(x, y, h, value, index, {k, k, nullptr}, workspace, stream);
}

void power_argmax_gap(const TensorView& x, const TensorView& y, const TensorView& h,
                      const TensorView& value, const TensorView& index, const TensorView& gap,
                      const TensorView& workspace, uintptr_t stream) {
  run(x, y, h, value, index, {2, 1, &gap}, workspace, stream);
}

}  // namespace otcuda::cuda
