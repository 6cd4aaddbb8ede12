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
#include "cpu/power_topk_kernel.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kPackedBytes = 1 << 20;  // samples that a thread keeps packed: they stay in L2
constexpr int64_t kPanelBytes = 1 << 18;   // targets that pass over them at a time: they share it
constexpr int64_t kMostBlocks = 16;        // of a run: their lists stay in L2
constexpr int64_t kMostTargets = 1 << 30;  // of a run: places are 32-bit
constexpr int64_t kFmasABeat = 1 << 20;    // of one sample, done one after the other
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

template <class T>
Shares share(const TopkProblem<T>& p, const TopkKernel<T>& kernel, int threads) {
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
    for (int64_t b = 0; b < blocks * block; ++b) {
      T* const packed = packed_.data() + b / block * block * p_.D + b % block;
      const T* const x = p_.x + (begin + b) * p_.D;
      for (int64_t d = 0; d < p_.D; ++d) packed[d * block] = begin + b < end ? x[d] : T(0);
    }
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

  // Thresholds from tiles spread over all targets, where that saves more entries in lists than it
  // costs. k targets have at least the score that is proved, so what is less is in no list; what
  // equals it may be, hence the number below.
  void warm(int64_t block, int64_t first, int64_t last) {
    const int64_t tiles = warm_tiles(last - first);
    if (tiles == 0) return;
    const int64_t begin = block * kernel_.samples;
    const TopkPanel<T> panel{packed_.data() + begin * p_.D,
                             p_.y + first * p_.D,
                             p_.h + first,
                             last - first - kernel_.targets,
                             p_.D,
                             0,
                             threshold_.data() + begin,
                             lists_.data() + begin,
                             p_.k};
    if (most_.size() == 0) most_ = Buffer<T>(p_.k * kernel_.samples);
    kernel_.warm(panel, tiles, most_.data());
    for (int64_t q = 0; q < kernel_.samples; ++q) {
      const T proved = most_[(p_.k - 1) * kernel_.samples + q];
      threshold_[begin + q] = std::nextafter(proved, -kInfinity);
    }
    heartbeat();
  }

  // The cost of a tile of them is that of its products and of sorting in its maxima; that of an
  // entry some 45 cycles, and k ln(N / targets seen) entries are left.
  int64_t warm_tiles(int64_t targets) const {
    const double product = double(p_.D) * double(sizeof(T)) / 116 + 0.1, k = double(p_.k);
    const int64_t best = int64_t(kEntryCost / kernel_.targets * k / (product + k / 96));
    const int64_t tiles =
        std::min(std::max(best, 2 * int64_t(p_.k)), targets / (4 * kernel_.targets));
    return tiles < 2 * p_.k ? 0 : tiles;
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
    const int64_t numbers = k + dead(b, first, last, to.index + k, p_.k - k);
    for (; k < p_.k; ++k) {
      to.value[k] = k < numbers ? -kInfinity : std::numeric_limits<T>::quiet_NaN();
      if (k >= numbers) to.index[k] = -1;
    }
  }

  // Scores of -inf are numbers, but enter no list of the kernel.
  int64_t dead(int64_t b, int64_t first, int64_t last, int64_t* index, int64_t room) const {
    const T* const x = p_.x + b * p_.D;
    for (int64_t d = 0; d < p_.D; ++d) {
      if (std::isnan(x[d])) return 0;
    }
    const int64_t some = std::max<int64_t>(1, kFmasABeat / std::max<int64_t>(1, p_.D));
    int64_t found = 0;
    for (int64_t i = first; i < last && found < room; i += some) {
      found += kernel_.dead(x, p_.y + i * p_.D, p_.h + i, std::min(some, last - i), p_.D, i,
                            index + found, room - found);
      heartbeat();
    }
    return found;
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

}  // namespace

void power_topk(const TopkProblem<float>& p, Poll* poll) { solve(p, poll); }
void power_topk(const TopkProblem<double>& p, Poll* poll) { solve(p, poll); }

}  // namespace otcuda::cpu
