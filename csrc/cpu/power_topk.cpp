// SPDX-License-Identifier: Apache-2.0
// Packing, threads and choice of level; the kernel is power_topk_body.h.
#include "cpu/power_topk.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/alloc.h"
#include "common/backend_info.h"
#include "common/simd.h"
#include "common/threads.h"
#include "cpu/power_argmax.h"
#include "cpu/power_screen.h"
#include "cpu/power_topk_kernel.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kPackedBytes = 1 << 20;  // samples that a thread keeps packed: they stay in L2
constexpr int64_t kPanelBytes = 1 << 18;   // targets that pass over them at a time: they share it
constexpr int64_t kMostBlocks = 16;        // of a run: their lists stay in L2
constexpr int64_t kMostTargets = 1 << 30;  // of a run: places are 32-bit
constexpr int64_t kFmasABeat = 1 << 20;    // of one sample, done one after the other
constexpr int64_t kEarlyTargets = 8192;    // that most often change some sample's two best
constexpr double kEntryCost = 45;          // of an entry in a list, cycles
constexpr double kNanosecondsPerFma = 0.03;

TopkKernels kernels(int64_t samples) {
  switch (simd_level()) {
#if OTCUDA_X86_LEVELS
    case SimdLevel::avx512:
      count_backend_path(BackendPath::power_topk_avx512, samples);
      return power_topk_avx512();
    case SimdLevel::avx2:
      count_backend_path(BackendPath::power_topk_avx2, samples);
      return power_topk_avx2();
#endif
    default:
      count_backend_path(BackendPath::power_topk_portable, samples);
      return power_topk_portable();
  }
}

template <class T>
TopkKernel<T> kernel(int64_t samples) {
  if constexpr (sizeof(T) == 4) {
    return kernels(samples).f32;
  } else {
    return kernels(samples).f64;
  }
}

int64_t round_up(int64_t a, int64_t unit) { return (a + unit - 1) / unit * unit; }

// How a group is cut: `parts` runs of targets times `runs` of samples.
struct Shares {
  int64_t runs, samples;
  int64_t parts, targets;
  int64_t panel;  // targets of a panel
};

template <class Problem, class T>
Shares share(const Problem& p, const TopkKernel<T>& kernel, int threads) {
  const int64_t row = std::max<int64_t>(1, p.D) * int64_t(sizeof(T));
  const int64_t most = std::clamp<int64_t>(kPackedBytes / (row * kernel.samples), 1, kMostBlocks);
  const int64_t blocks = round_up(p.B, kernel.samples) / kernel.samples;
  Shares s;
  s.samples =
      std::clamp<int64_t>((blocks * p.G + threads - 1) / threads, 1, std::min(most, blocks)) *
      kernel.samples;
  s.runs = (p.B + s.samples - 1) / s.samples;
  s.panel = std::clamp<int64_t>(kPanelBytes / row, 96, 4096) / kernel.targets * kernel.targets;
  s.parts = std::max<int64_t>(std::min(threads / (blocks * p.G), p.N / s.panel),
                              (p.N + kMostTargets - 1) / kMostTargets);
  s.targets = round_up((p.N + s.parts - 1) / s.parts, kernel.targets);
  return s;
}

// Whole blocks of samples, [D][block] each; those that are missing in the last one are zero.
template <class T>
void pack(const T* x, int64_t count, int64_t D, int64_t block, T* packed) {
  for (int64_t b = 0; b < round_up(count, block); ++b) {
    T* const to = packed + b / block * block * D + b % block;
    for (int64_t d = 0; d < D; ++d) to[d * block] = b < count ? x[b * D + d] : T(0);
  }
}

// Scores of -inf are numbers, but enter no list of the kernel: the first `room` targets of [first,
// last) that have one.
template <class T>
int64_t dead(const TopkKernel<T>& kernel, const T* x, const T* y, const T* h, int64_t D,
             int64_t first, int64_t last, int64_t* index, int64_t room) {
  for (int64_t d = 0; d < D; ++d) {
    if (std::isnan(x[d])) return 0;
  }
  const int64_t some = std::max<int64_t>(1, kFmasABeat / std::max<int64_t>(1, D));
  int64_t found = 0;
  for (int64_t i = first; i < last && found < room; i += some) {
    found += kernel.dead(x, y + i * D, h + i, std::min(some, last - i), D, i, index + found,
                         room - found);
    heartbeat();
  }
  return found;
}

// Tiles for `prove`. The cost of one is that of its products and of sorting in its maxima; that of
// an entry some 45 cycles, and k ln(N / targets seen) entries are left.
template <class T>
int64_t proving_tiles(const TopkKernel<T>& kernel, int64_t targets, int64_t D, int64_t k) {
  const double product = double(D) * double(sizeof(T)) / 116 + 0.1;
  const double best = kEntryCost / kernel.targets * double(k) / (product + double(k) / 96);
  const int64_t tiles = std::min(std::max(int64_t(best), 2 * k), targets / (4 * kernel.targets));
  return tiles < 2 * k ? 0 : tiles;
}

// Thresholds from tiles spread over all targets of the panel, where that saves more entries in
// lists than it costs. k targets have at least the score that is proved, so what is less is in no
// list; what equals it may be, hence the number below. `most` is room that is kept.
template <class T>
void prove(const TopkKernel<T>& kernel, TopkPanel<T> panel, Buffer<T>* most) {
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  const int64_t tiles = proving_tiles(kernel, panel.targets, panel.D, panel.k);
  if (tiles == 0) return;
  panel.targets -= kernel.targets;  // where the last tile may begin
  if (most->size() == 0) *most = Buffer<T>(int64_t(panel.k) * kernel.samples);
  kernel.warm(panel, tiles, most->data());
  for (int q = 0; q < kernel.samples; ++q) {
    const T proved = (*most)[(panel.k - 1) * kernel.samples + q];
    panel.threshold[q] = std::nextafter(proved, -kInfinity);
  }
  heartbeat();
}

// Where the lists of a run go: rows of k.
template <class T>
struct Rows {
  T* value;
  int64_t* index;
};

// Some samples of a group against some of its targets.
template <class T>
class Scan {
 public:
  Scan(const TopkProblem<T>& group, const TopkKernel<T>& kernel, const Shares& shares)
      : p_(group),
        kernel_(kernel),
        panel_(shares.panel),
        packed_(shares.samples * group.D),
        threshold_(shares.samples, -kInfinity),
        lists_(shares.samples) {
    using List = TopkList<T>;
    for (List& list : lists_) {
      std::fill_n(list.score, List::kBefore, kInfinity);
      std::fill_n(list.score + List::kBefore, kMostTopk, -kInfinity);
    }
  }

  void run(int64_t begin, int64_t end, int64_t first, int64_t last, const Rows<T>& to) {
    const int64_t block = kernel_.samples, blocks = round_up(end - begin, block) / block;
    pack(p_.x + begin * p_.D, end - begin, p_.D, block, packed_.data());
    for (int64_t k = 0; k < blocks; ++k) warm(k, first, last);
    for (int64_t i = first; i < last; i += panel_) {
      const int64_t targets = std::min(panel_, last - i);
      for (int64_t k = 0; k < blocks; ++k) {
        kernel_.panel({packed_.data() + k * block * p_.D, p_.y + i * p_.D, p_.h + i, targets, p_.D,
                       i - first, threshold_.data() + k * block, lists_.data() + k * block, p_.k});
        heartbeat();
      }
    }
    for (int64_t b = begin; b < end; ++b) {
      write(b, lists_[b - begin], first, last, {to.value + b * p_.k, to.index + b * p_.k});
    }
  }

 private:
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();

  void warm(int64_t block, int64_t first, int64_t last) {
    const int64_t at = block * kernel_.samples;
    prove(kernel_,
          {packed_.data() + at * p_.D, p_.y + first * p_.D, p_.h + first, last - first, p_.D, 0,
           threshold_.data() + at, lists_.data() + at, p_.k},
          &most_);
  }

  void write(int64_t b, const TopkList<T>& list, int64_t first, int64_t last,
             const Rows<T>& to) const {
    const T* const score = list.score + TopkList<T>::kBefore;
    int64_t k = 0;
    for (; k < p_.k && score[k] > -kInfinity; ++k) {
      to.value[k] = score[k];
      to.index[k] = first + list.index[TopkList<T>::kBefore + k];
    }
    if (k == p_.k) return;
    const int64_t numbers =
        k + dead(kernel_, p_.x + b * p_.D, p_.y, p_.h, p_.D, first, last, to.index + k, p_.k - k);
    for (; k < p_.k; ++k) {
      to.value[k] = k < numbers ? -kInfinity : std::numeric_limits<T>::quiet_NaN();
      if (k >= numbers) to.index[k] = -1;
    }
  }

  const TopkProblem<T>& p_;
  const TopkKernel<T>& kernel_;
  const int64_t panel_;
  Buffer<T> packed_, threshold_, most_;
  Buffer<TopkList<T>> lists_;
};

// Lists of runs of targets in ascending order, [parts][rows][k]: the earlier run keeps a tie.
template <class T>
void merge(const TopkProblem<T>& p, int64_t parts, const Buffer<T>& value,
           const Buffer<int64_t>& index) {
  const int64_t rows = p.G * p.B;
  for (int64_t row = 0; row < rows; ++row) {
    T best[kMostTopk], merged[kMostTopk];
    int64_t place[kMostTopk], merged_place[kMostTopk];
    std::copy_n(value.data() + row * p.k, p.k, best);
    std::copy_n(index.data() + row * p.k, p.k, place);
    for (int64_t part = 1; part < parts; ++part) {
      const T* const other = value.data() + (part * rows + row) * p.k;
      const int64_t* const other_place = index.data() + (part * rows + row) * p.k;
      for (int k = 0, a = 0, b = 0; k < p.k; ++k) {
        const bool later = other_place[b] >= 0 && (place[a] < 0 || other[b] > best[a]);
        merged[k] = later ? other[b] : best[a];
        merged_place[k] = later ? other_place[b] : place[a];
        ++(later ? b : a);
      }
      std::copy_n(merged, p.k, best);
      std::copy_n(merged_place, p.k, place);
    }
    std::copy_n(best, p.k, p.value + row * p.k);
    std::copy_n(place, p.k, p.index + row * p.k);
  }
}

template <class T>
void solve(const TopkProblem<T>& p, Poll* poll) {
  if (p.G == 0 || p.B == 0) return;
  const DefaultFloatMode mode;  // of merge: subnormals differ
  const TopkKernel<T> level = kernel<T>(p.G * p.B);
  const double work = double(p.G) * double(p.B) * double(p.N) * double(p.D + 4);
  const int threads = threads_for(kNanosecondsPerFma * work);
  const Shares s = share(p, level, threads);
  const int64_t rows = p.G * p.B * p.k;
  Buffer<T> value(s.parts > 1 ? s.parts * rows : 0);
  Buffer<int64_t> index(s.parts > 1 ? s.parts * rows : 0);
  const auto one = [&](int64_t task, int64_t) {
    const int64_t part = task / s.runs % s.parts, group = task / s.runs / s.parts;
    const int64_t begin = task % s.runs * s.samples, end = std::min(p.B, begin + s.samples);
    const int64_t first = std::min(p.N, part * s.targets);
    const int64_t last = std::min(p.N, first + s.targets);
    const TopkProblem<T> alone{p.x + group * p.B * p.D,
                               p.y + group * p.N * p.D,
                               p.h + group * p.N,
                               1,
                               p.B,
                               p.N,
                               p.D,
                               p.k,
                               nullptr,
                               nullptr};
    const int64_t at = part * rows * (s.parts > 1) + group * p.B * p.k;
    const Rows<T> to = s.parts > 1 ? Rows<T>{value.data() + at, index.data() + at}
                                   : Rows<T>{p.value + at, p.index + at};
    Scan<T>(alone, level, s).run(begin, end, first, last, to);
  };
  parallel_for(p.G * s.parts * s.runs, 1, one, poll, threads);
  if (s.parts > 1) merge(p, s.parts, value, index);
}

// The best, its index and the second best of some samples of a group against some of its targets.
template <class T>
class GapScan {
 public:
  GapScan(const GapProblem<T>& group, const TopkKernel<T>& kernel, const Shares& shares)
      : p_(group),
        kernel_(kernel),
        panel_(shares.panel),
        packed_(shares.samples * group.D),
        best_(shares.samples, -kInfinity),
        second_(shares.samples, -kInfinity),
        place_(shares.samples, -1) {}

  // The second best goes where the gap will be.
  void run(int64_t begin, int64_t end, int64_t first, int64_t last, T* value, int64_t* index,
           T* second) {
    const int64_t block = kernel_.samples, blocks = round_up(end - begin, block) / block;
    pack(p_.x + begin * p_.D, end - begin, p_.D, block, packed_.data());
    for (int64_t i = first; i < last; i += panel_) {
      for (int64_t k = 0; k < blocks; ++k) {
        const int64_t at = k * block;
        (i - first < kEarlyTargets ? kernel_.pair_early : kernel_.pair)(
            {packed_.data() + at * p_.D, p_.y + i * p_.D, p_.h + i, std::min(panel_, last - i),
             p_.D, i - first, best_.data() + at, second_.data() + at, place_.data() + at});
        heartbeat();
      }
    }
    for (int64_t b = begin; b < end; ++b) {
      const int64_t i = first + place_[b - begin];
      second[b] = second_[b - begin];
      if (i >= first) {
        index[b] = i + kernel_.settle(p_.x + b * p_.D, p_.y + i * p_.D, p_.h + i, last - i, p_.D,
                                      value + b);
      } else {  // nothing exceeds -inf
        value[b] = -kInfinity;
        if (dead(kernel_, p_.x + b * p_.D, p_.y, p_.h, p_.D, first, last, index + b, 1) == 0) {
          value[b] = std::numeric_limits<T>::quiet_NaN();
          index[b] = -1;
        }
      }
      if ((b - begin) % kernel_.samples == 0) heartbeat();
    }
  }

 private:
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();

  const GapProblem<T>& p_;
  const TopkKernel<T>& kernel_;
  const int64_t panel_;
  Buffer<T> packed_, best_, second_;
  Buffer<typename TopkIndex<T>::Type> place_;
};

// From parts [parts][rows] in ascending order to the first; the lower index keeps a tie.
template <class T>
void merge_pairs(int64_t parts, int64_t rows, T* value, int64_t* index, T* second) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t at = rows + row; at < parts * rows; at += rows) {
      if (index[at] < 0) continue;  // no number there
      const bool later = index[row] < 0 || value[at] > value[row];
      const T loser = later ? value[row] : value[at];
      second[row] = std::max(second[row], second[at]);
      if (index[row] >= 0) second[row] = std::max(second[row], loser);
      if (later) {
        value[row] = value[at];
        index[row] = index[at];
      }
    }
  }
}

template <class T>
void solve_gap(const GapProblem<T>& p, Poll* poll) {
  if (p.G == 0 || p.B == 0) return;
  const DefaultFloatMode mode;  // of merging: subnormals differ
  const TopkKernel<T> level = kernel<T>(p.G * p.B);
  const double work = double(p.G) * double(p.B) * double(p.N) * double(p.D + 2);
  const int threads = threads_for(kNanosecondsPerFma * work);
  const Shares s = share(p, level, threads);
  const int64_t rows = p.G * p.B, spare = s.parts > 1 ? s.parts * rows : 0;
  Buffer<T> values(spare), seconds(spare);
  Buffer<int64_t> indices(spare);
  T* const value = spare > 0 ? values.data() : p.value;
  T* const second = spare > 0 ? seconds.data() : p.gap;
  int64_t* const index = spare > 0 ? indices.data() : p.index;
  const auto one = [&](int64_t task, int64_t) {
    const int64_t part = task / s.runs % s.parts, group = task / s.runs / s.parts;
    const int64_t begin = task % s.runs * s.samples, end = std::min(p.B, begin + s.samples);
    const int64_t first = std::min(p.N, part * s.targets);
    const int64_t last = std::min(p.N, first + s.targets), to = part * rows + group * p.B;
    GapProblem<T> alone = p;
    alone.x += group * p.B * p.D;
    alone.y += group * p.N * p.D;
    alone.h += group * p.N;
    GapScan<T>(alone, level, s).run(begin, end, first, last, value + to, index + to, second + to);
  };
  parallel_for(p.G * s.parts * s.runs, 1, one, poll, threads);
  if (spare > 0) {
    merge_pairs(s.parts, rows, value, index, second);
    std::copy_n(value, rows, p.value);
    std::copy_n(index, rows, p.index);
  }
  for (int64_t row = 0; row < rows; ++row) {
    p.gap[row] = power_gap(p.value[row], second[row]);
  }
}

}  // namespace

void power_argmax_gap(const GapProblem<float>& p, Poll* poll) { solve_gap(p, poll); }
void power_argmax_gap(const GapProblem<double>& p, Poll* poll) { solve_gap(p, poll); }

bool power_topk_screened(const PowerScreen& screen, const TopkProblem<float>& p, ScreenTrust trust,
                         Poll* poll) {
  Buffer<uint8_t> left(p.B);
  ScreenCounts counts;
  const bool bites =
      screen.topk(p.x, p.B, p.k, p.value, p.index, left.data(), trust, poll, &counts);
  const int64_t others = std::count(left.begin(), left.end(), 1);
  count_backend_path(BackendPath::power_topk_screen, p.B - others);
  if (others > 0) count_backend_path(BackendPath::power_topk_screen_fallbacks, others);
  count_backend_path(BackendPath::power_topk_screen_pairs, counts.pairs);
  count_backend_path(BackendPath::power_topk_screen_chains, counts.chains);
  for (int64_t b = 0; b < p.B;) {
    int64_t end = b;
    while (end < p.B && left[end] != 0) ++end;
    if (end > b) {
      solve(TopkProblem<float>{p.x + b * p.D, p.y, p.h, 1, end - b, p.N, p.D, p.k,
                               p.value + b * p.k, p.index + b * p.k},
            poll);
    }
    b = end + 1;
  }
  return bites;
}

void power_topk(const TopkProblem<float>& p, Poll* poll) {
  if (p.G == 1 && power_screen_pays_topk(p.B, p.N, p.D, p.k, false)) {
    const ArgmaxProblem<float> best{p.x, p.y, p.h, p.B, p.N, p.D, nullptr, nullptr};
    PowerScreen screen;
    if (power_argmax_screen_bites(best, poll) && screen.build(p.y, p.N, p.D, p.x, p.B, poll)) {
      screen.set_heights(p.h);
      power_topk_screened(screen, p, ScreenTrust::trial, poll);
      return;
    }
    count_backend_path(BackendPath::power_topk_screen_fallbacks, p.B);
  }
  solve(p, poll);
}
void power_topk(const TopkProblem<double>& p, Poll* poll) { solve(p, poll); }

void power_topk_blocked(const TopkProblem<float>& p, Poll* poll) { solve(p, poll); }
void power_topk_blocked(const TopkProblem<double>& p, Poll* poll) { solve(p, poll); }

}  // namespace otcuda::cpu
