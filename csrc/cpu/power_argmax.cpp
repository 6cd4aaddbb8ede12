// SPDX-License-Identifier: Apache-2.0
// Packing, threads and choice of level; the kernel is power_argmax_body.h.
#include "cpu/power_argmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/alloc.h"
#include "common/backend_info.h"
#include "common/power_argmax.h"
#include "common/simd.h"
#include "common/threads.h"
#include "cpu/power_argmax_kernel.h"
#include "cpu/power_screen.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kPackedBytes = 1 << 20;  // samples that a thread keeps packed: they stay in L2
constexpr int64_t kPanelBytes = 1 << 18;   // targets that pass over them at a time: they share it
constexpr int64_t kMostTargets = 1 << 30;  // of a run: places are 32-bit
constexpr int64_t kFmasABeat = 1 << 20;    // of one sample, done one after the other
constexpr int64_t kProbeSamples = 32;      // that a screen is tried on
constexpr int64_t kProbePart =
    25'000;  // pairs of a call for a target it is tried on, in high D: 2 %
constexpr int64_t kLeastProbe = 240, kMostProbe = 2048, kProbeRun = 8;
constexpr double kNanosecondsPerFma = 0.025;

ArgmaxKernels kernels(int64_t B) {
  switch (simd_level()) {
#if OTCUDA_X86_LEVELS
    case SimdLevel::avx512:
      count_backend_path(BackendPath::power_argmax_avx512, B);
      return power_argmax_avx512();
    case SimdLevel::avx2:
      count_backend_path(BackendPath::power_argmax_avx2, B);
      return power_argmax_avx2();
#endif
    default:
      count_backend_path(BackendPath::power_argmax_portable, B);
      return power_argmax_portable();
  }
}

template <class T>
ArgmaxKernel<T> kernel(int64_t B) {
  if constexpr (sizeof(T) == 4) {
    return kernels(B).f32;
  } else {
    return kernels(B).f64;
  }
}

int64_t round_up(int64_t a, int64_t unit) { return (a + unit - 1) / unit * unit; }

// How the work is cut: `parts` runs of targets, and runs of samples that are handed out one by one.
struct Shares {
  int64_t samples;  // of a run, whole blocks
  int64_t parts, targets;
  int64_t panel;  // targets of a panel
};

template <class T>
Shares share(const ArgmaxProblem<T>& p, const ArgmaxKernel<T>& kernel, int threads) {
  const int64_t row = std::max<int64_t>(1, p.D) * int64_t(sizeof(T));
  const int64_t block = kernel.blocks.samples;
  const int64_t most = std::max<int64_t>(1, kPackedBytes / (row * block));
  const int64_t blocks = round_up(p.B, block) / block;
  Shares s;
  s.samples = std::clamp<int64_t>((blocks + threads - 1) / threads, 1, most) * block;
  s.panel = std::clamp<int64_t>(kPanelBytes / row / kPanelUnit, 1, 42) * kPanelUnit;
  // Few samples: the threads share the targets as well. Merging is exact, so the result is the
  // same.
  s.parts = std::max<int64_t>(std::min(threads / blocks, p.N / s.panel),
                              (p.N + kMostTargets - 1) / kMostTargets);
  s.targets = round_up((p.N + s.parts - 1) / s.parts, kPanelUnit);
  return s;
}

// packed[d][q] = x[q][d]; the samples that are missing in the last block are zero.
template <class T>
void pack(const T* x, int64_t count, int64_t D, int samples, T* packed) {
  constexpr int64_t kRows = 16;  // a strip of the block stays in L1
  for (int64_t d0 = 0; d0 < D; d0 += kRows) {
    const int64_t d1 = std::min(D, d0 + kRows);
    for (int64_t q = 0; q < samples; ++q) {
      for (int64_t d = d0; d < d1; ++d) packed[d * samples + q] = q < count ? x[q * D + d] : T(0);
    }
  }
}

// Samples [begin, end) against targets [first, last). Those left over after whole blocks go in
// narrow ones, and the handful after these in lanes of targets.
template <class T>
class Scan {
 public:
  Scan(const ArgmaxProblem<T>& problem, const ArgmaxKernel<T>& kernel, int64_t panel, int64_t begin,
       int64_t end, int64_t first, int64_t last)
      : p_(problem),
        kernel_(kernel),
        panel_(panel),
        begin_(begin),
        end_(end),
        first_(first),
        last_(last),
        packed_(round_up(end - begin, kernel.blocks.samples) * problem.D),
        best_(round_up(end - begin, kernel.blocks.samples), -std::numeric_limits<T>::infinity()),
        place_(best_.size(), -1) {}

  // To value and index of the first of these samples.
  void run(T* value, int64_t* index) {
    const int64_t rest = (end_ - begin_) % kernel_.blocks.samples, narrow = kernel_.narrow.samples;
    int64_t few = 0, whole = end_;
    // Quarters of a block that take less than a whole one: in low D tiles of few have too few
    // terms.
    const int64_t quarters = std::min<int64_t>(3, 1 + p_.D / 8);
    if (kernel_.few != nullptr && rest * 4 <= kernel_.blocks.samples * quarters) {
      few = rest % narrow > narrow / 2 ? 0 : rest % narrow;
      whole -= rest;
    }
    const Part parts[] = {{kernel_.blocks, begin_, whole}, {kernel_.narrow, whole, end_ - few}};
    Few handful(p_, few, end_);
    for (const Part& part : parts) pack_part(part);
    for (int64_t i = first_; i < last_; i += panel_) {
      const int64_t targets = std::min(panel_, last_ - i);
      for (const Part& part : parts) pass_panel(part, i, targets);
      if (few > 0) handful.pass_panel(kernel_, i, targets, first_);
    }
    for (const Part& part : parts) settle(part, value, index);
    for (int64_t k = 0; k < few; ++k) {
      const int64_t at = end_ - few - begin_ + k;
      settle_few(handful, k, value + at, index + at);
    }
  }

 private:
  struct Part {
    const ArgmaxBlocks<T>& blocks;
    int64_t begin, end;  // samples
  };

  // A handful of samples in lanes of targets.
  struct Few {
    Few(const ArgmaxProblem<T>& problem, int64_t samples, int64_t end)
        : p(problem),
          count(samples),
          x(count > 0 ? kFewSamples * p.D : 0, T(0)),
          spare(count > 0 ? kFewLanes * (p.D + 1) : 0, T(0)),
          best(count > 0 ? kFewSamples * kFewLanes : 0, -std::numeric_limits<T>::infinity()),
          place(best.size(), -1) {
      std::copy(p.x + (end - count) * p.D, p.x + end * p.D, x.data());
    }

    void pass_panel(const ArgmaxKernel<T>& kernel, int64_t i, int64_t targets, int64_t first) {
      kernel.few({x.data(), p.y + i * p.D, p.h + i, count, targets, p.D, (p.N - i) * p.D, i - first,
                  spare.data(), best.data(), place.data()});
      heartbeat();
    }

    const ArgmaxProblem<T>& p;
    const int64_t count;
    Buffer<T> x, spare, best;
    Buffer<typename ArgmaxIndex<T>::Type> place;
  };

  void pack_part(const Part& part) {
    const int64_t block = part.blocks.samples;
    for (int64_t b = part.begin; b < part.end; b += block) {
      pack(p_.x + b * p_.D, std::min(block, part.end - b), p_.D, part.blocks.samples,
           packed_.data() + (b - begin_) * p_.D);
    }
  }

  void pass_panel(const Part& part, int64_t i, int64_t targets) {
    for (int64_t b = part.begin; b < part.end; b += part.blocks.samples) {
      const int64_t k = b - begin_;
      part.blocks.panel({packed_.data() + k * p_.D, p_.y + i * p_.D, p_.h + i, targets, p_.D,
                         i - first_, best_.data() + k, place_.data() + k});
      heartbeat();
    }
  }

  void settle(const Part& part, T* value, int64_t* index) {
    const T *const y = p_.y + first_ * p_.D, *const h = p_.h + first_;
    for (int64_t b = part.begin; b < part.end; b += part.blocks.samples) {
      const int64_t k = b - begin_, count = std::min<int64_t>(part.blocks.samples, part.end - b);
      part.blocks.settle({p_.x + b * p_.D, y, h, count, last_ - first_, p_.D, best_.data() + k,
                          place_.data() + k, value + k, index + k});
      heartbeat();
    }
    for (int64_t k = part.begin - begin_; k < part.end - begin_; ++k) {
      if (place_[k] < 0) {
        settle_lowest(begin_ + k, value + k, index + k);
      } else {
        index[k] += first_;
      }
    }
  }

  void settle_few(const Few& handful, int64_t k, T* value, int64_t* index) {
    *value = -std::numeric_limits<T>::infinity();
    *index = -1;
    for (int64_t lane = 0; lane < kernel_.few_lanes; ++lane) {
      const T score = handful.best[k * kFewLanes + lane];
      const int64_t i = handful.place[k * kFewLanes + lane] + lane;
      if (score > *value || (score == *value && *index >= 0 && i < *index)) {
        *value = score;
        *index = i;
      }
    }
    if (*index < 0) {
      settle_lowest(end_ - handful.count + k, value, index);
    } else {
      *index += first_;
    }
  }

  // Nothing exceeds -inf in this row.
  void settle_lowest(int64_t b, T* value, int64_t* index) const {
    const int64_t winner = lowest(b);
    *value = winner < 0 ? std::numeric_limits<T>::quiet_NaN() : -std::numeric_limits<T>::infinity();
    *index = winner < 0 ? -1 : first_ + winner;
  }

  // The first number of the run in such a row, counted from its first, or -1.
  int64_t lowest(int64_t b) const {
    const T* const x = p_.x + b * p_.D;
    for (int64_t d = 0; d < p_.D; ++d) {
      if (std::isnan(x[d])) return -1;
    }
    const int64_t some = std::max<int64_t>(1, kFmasABeat / p_.D);
    for (int64_t i = first_; i < last_; i += some) {
      const int64_t n =
          kernel_.first_number(x, p_.y + i * p_.D, p_.h + i, std::min(some, last_ - i), p_.D);
      if (n >= 0) return i - first_ + n;
      heartbeat();
    }
    return -1;
  }

  const ArgmaxProblem<T>& p_;
  const ArgmaxKernel<T>& kernel_;
  const int64_t panel_, begin_, end_, first_, last_;
  Buffer<T> packed_, best_;
  Buffer<typename ArgmaxIndex<T>::Type> place_;
};

// Runs of targets in ascending order: the lower index keeps a tie.
template <class T>
void merge(const ArgmaxProblem<T>& p, int64_t parts, const Buffer<T>& value,
           const Buffer<int64_t>& index) {
  for (int64_t b = 0; b < p.B; ++b) {
    T best = value[b];
    int64_t winner = index[b];
    for (int64_t part = 1; part < parts; ++part) {
      const T score = value[part * p.B + b];
      if (power_argmax_beats(score, best)) {
        best = score;
        winner = index[part * p.B + b];
      }
    }
    p.value[b] = best;
    p.index[b] = winner;
  }
}

// D = 0: the heights alone decide, and for every sample alike.
template <class T>
void solve_heights(const ArgmaxProblem<T>& p) {
  T best = std::numeric_limits<T>::quiet_NaN();
  int64_t winner = -1;
  for (int64_t i = 0; i < p.N; ++i) {
    const T score = T(0) + p.h[i];
    if (power_argmax_beats(score, best)) {
      best = score;
      winner = i;
    }
  }
  std::fill(p.value, p.value + p.B, best);
  std::fill(p.index, p.index + p.B, winner);
}

template <class T>
void solve_blocked(const ArgmaxProblem<T>& p, Poll* poll) {
  if (p.B == 0) return;
  const ArgmaxKernel<T> level = kernel<T>(p.B);
  if (p.D == 0) return solve_heights(p);
  const int threads = threads_for(kNanosecondsPerFma * double(p.B) * double(p.N) * double(p.D + 2));
  const Shares s = share(p, level, threads);
  const int64_t runs = (p.B + s.samples - 1) / s.samples;
  Buffer<T> value(s.parts > 1 ? s.parts * p.B : 0);
  Buffer<int64_t> index(s.parts > 1 ? s.parts * p.B : 0);
  const auto one = [&](int64_t task, int64_t) {
    const int64_t part = task / runs, begin = task % runs * s.samples;
    const int64_t end = std::min(p.B, begin + s.samples);
    const int64_t first = std::min(p.N, part * s.targets);
    const int64_t last = std::min(p.N, first + s.targets);
    T* const to = s.parts > 1 ? value.data() + part * p.B : p.value;
    int64_t* const index_to = s.parts > 1 ? index.data() + part * p.B : p.index;
    Scan<T>(p, level, s.panel, begin, end, first, last).run(to + begin, index_to + begin);
  };
  parallel_for(runs * s.parts, 1, one, poll, threads);
  if (s.parts > 1) merge(p, s.parts, value, index);
}

// Heights that a screen can take: one is finite, none NaN or +inf.
bool screen_takes(const float* h, int64_t N) {
  int32_t any = 0, wild = 0;  // no branch, so that the compiler makes vectors of it
  for (int64_t i = 0; i < N; ++i) {
    const int32_t below = h[i] < 1e30f ? 1 : 0, above = h[i] > -1e30f ? 1 : 0;
    const int32_t live = h[i] > -std::numeric_limits<float>::infinity() ? 1 : 0;
    any |= above;
    wild |= (below ^ 1) | (live & (above ^ 1));
  }
  return any != 0 && wild == 0;
}

}  // namespace

// Targets are taken in runs, so that near duplicates meet; samples evenly, wild ones left out.
bool power_argmax_screen_bites(const ArgmaxProblem<float>& p, Poll* poll) {
  if (!screen_takes(p.h, p.N)) return false;
  const double part = double(p.B) * double(p.N) / kProbePart * double(p.D) / double(p.D + 32);
  const int64_t most = std::clamp<int64_t>(int64_t(part), kLeastProbe, kMostProbe);
  const int64_t runs = std::min(most, p.N / 4) / kProbeRun, N = runs * kProbeRun;
  Buffer<float> y(N * p.D), h(N), x(kProbeSamples * p.D);
  for (int64_t k = 0; k < runs; ++k) {
    const int64_t from = (p.N - kProbeRun) * (2 * k + 1) / (2 * runs);
    std::copy_n(p.y + from * p.D, kProbeRun * p.D, y.data() + k * kProbeRun * p.D);
    std::copy_n(p.h + from, kProbeRun, h.data() + k * kProbeRun);
  }
  int64_t B = 0;
  for (int64_t k = 0; k < kProbeSamples; ++k) {
    const float* const row = p.x + p.B * k / kProbeSamples * p.D;
    const auto wild = [](float v) { return !(std::fabs(v) < 1e15f); };
    if (std::none_of(row, row + p.D, wild)) std::copy_n(row, p.D, x.data() + B++ * p.D);
  }
  if (B == 0 || !screen_takes(h.data(), N)) return false;
  PowerScreen probe;
  if (!probe.build(y.data(), N, p.D, x.data(), B, poll)) return false;
  probe.set_heights(h.data());
  return probe.bites(x.data(), B, p.N, poll);
}

bool power_argmax_screened(const PowerScreen& screen, const ArgmaxProblem<float>& p,
                           ScreenTrust trust, Poll* poll, const ArgmaxRest& rest) {
  Buffer<uint8_t> left(p.B);
  ScreenCounts counts;
  const bool bites = screen.argmax(p.x, p.B, p.value, p.index, left.data(), trust, poll, &counts);
  const int64_t others = std::count(left.begin(), left.end(), 1);
  count_backend_path(BackendPath::power_argmax_screen, p.B - others);
  if (screen.wide()) {
    count_backend_path(screen.halves() ? BackendPath::power_argmax_screen_bfloat16
                                       : BackendPath::power_argmax_screen_vnni,
                       p.B - others);
  }
  if (others > 0 && !rest) count_backend_path(BackendPath::power_argmax_screen_fallbacks, others);
  count_backend_path(BackendPath::power_argmax_screen_pairs, counts.pairs);
  count_backend_path(BackendPath::power_argmax_screen_chains, counts.chains);
  for (int64_t b = 0; b < p.B;) {
    int64_t end = b;
    while (end < p.B && left[end] != 0) ++end;
    const ArgmaxProblem<float> left_over{p.x + b * p.D, p.y, p.h,         end - b,
                                         p.N,           p.D, p.value + b, p.index + b};
    if (end > b && rest) rest(left_over, !bites);
    if (end > b && !rest) power_argmax_blocked(left_over, poll);
    b = end + 1;
  }
  return bites;
}

void power_argmax_blocked(const ArgmaxProblem<float>& p, Poll* poll) { solve_blocked(p, poll); }
void power_argmax_blocked(const ArgmaxProblem<double>& p, Poll* poll) { solve_blocked(p, poll); }

void power_argmax(const ArgmaxProblem<float>& p, Poll* poll) {
  if (power_screen_pays(p.B, p.N, p.D, false)) {
    PowerScreen screen;
    if (power_argmax_screen_bites(p, poll) && screen.build(p.y, p.N, p.D, p.x, p.B, poll)) {
      screen.set_heights(p.h);
      power_argmax_screened(screen, p, ScreenTrust::trial, poll);
      return;
    }
    count_backend_path(BackendPath::power_argmax_screen_fallbacks, p.B);
  }
  power_argmax_blocked(p, poll);
}

void power_argmax(const ArgmaxProblem<double>& p, Poll* poll) { power_argmax_blocked(p, poll); }

}  // namespace otcuda::cpu
