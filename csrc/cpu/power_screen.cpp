// SPDX-License-Identifier: Apache-2.0
// Targets into integers; samples and the scan are power_screen_scan.cpp.
#include "cpu/power_screen.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "common/host_device.h"
#include "common/simd.h"
#include "common/threads.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kGroupBytes = 1 << 17;  // integers that pass over the samples at a time: L2
constexpr int64_t kSomeTargets = 256;     // that tell where targets lie and how large they are
constexpr int64_t kMostD = 4096;          // sums of products stay far from 2^31
constexpr double kListCost = 1000;        // of a pair above the threshold of a list
constexpr int64_t kSpareRows = 12;        // that a last tile may read
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Mean of up to `most` rows, evenly spread.
void mean(const float* rows, int64_t count, int64_t D, int64_t most, float* out) {
  Buffer<double> sum(D, 0.0);
  const int64_t step = std::max<int64_t>(1, count / most);
  int64_t n = 0;
  for (int64_t k = 0; k < count; k += step, ++n) {
    for (int64_t d = 0; d < D; ++d) sum[d] += rows[k * D + d];
  }
  for (int64_t d = 0; d < D; ++d) out[d] = n > 0 ? static_cast<float>(sum[d] / double(n)) : 0.0f;
}

double norm(const Buffer<float>& a) {
  double sum = 0;
  for (const float v : a) sum += double(v) * double(v);
  return std::sqrt(sum);
}

}  // namespace

ScreenKernels power_screen_kernels() {
  switch (simd_level()) {
#if OTCUDA_X86_LEVELS
    case SimdLevel::avx512:
      if (simd_bf16_only()) return power_screen_bf16();
      return simd_vnni() ? power_screen_vnni() : power_screen_avx512();
    case SimdLevel::avx2:
      return power_screen_avx2();
#endif
    default:
      return power_screen_portable();
  }
}

ScreenKernels power_screen_halves() {
#if OTCUDA_X86_LEVELS
  return power_screen_bf16();
#else
  return {};
#endif
}

bool PowerScreen::of_level_in_force() const {
  return level_.panel == power_screen_kernels().panel || (level_.halves && simd_bf16_too());
}

bool power_screen_pays(int64_t B, int64_t N, int64_t D, bool built) {
  if (D > kMostD || N >= (int64_t(1) << 30)) return false;
  if (power_screen_kernels().wide) {
    const bool many = D >= 8 && N * D >= (D >= 24 ? 1 << 15 : D >= 16 ? 3 << 14 : 3 << 15);
    if (built) return many && B >= 1;
    // The trial takes time in proportion to D, whatever B and N are.
    return many && B >= 128 && B * N >= 4096 * D && B * N * D >= (1 << 29);
  }
  return D >= 16 && N * D >= (1 << 18) && (D >= 32 || N * D >= (1 << 19)) &&
         B >= (built ? 64 : 1024) && (built || B * D >= (1 << 16));
}

// Against the blocked loop's lists, in steps of that loop: the integers take 0.4 of it, and of the
// 2 k ln(N / 256) pairs that normal data leave each has its chain and enters a list.
bool power_screen_pays_topk(int64_t B, int64_t N, int64_t D, int k, bool built) {
  const double all = double(N) * double(D);
  const double pairs = 2.0 * k * std::log(std::max(2.0, double(N) / 256));
  return power_screen_kernels().wide && B > 8 && D >= 16 && power_screen_pays(B, N, D, built) &&
         0.4 * all + pairs * (kListCost + 12 * double(D)) < 1.15 * all;
}

double power_screen_share(int64_t D) {
  if (!power_screen_kernels().wide) return 0.7;
  return D < 16 ? 0.55 : 0.4;
}

// Where targets and samples lie. Any vectors would do: they only make the integers small.
bool PowerScreen::centre(const float* x, int64_t B) {
  mu_ = Buffer<float>(D_, 0.0f);
  nu_ = Buffer<float>(D_, 0.0f);
  mean(y_, N_, D_, kSomeTargets, mu_.data());
  mean(x, B, D_, 256, nu_.data());
  mu_norm_ = norm(mu_);
  nu_norm_ = norm(nu_);
  double away = 0, spread = 0;
  for (int64_t k = 0; k < B; k += std::max<int64_t>(1, B / 64)) {
    for (int64_t d = 0; d < D_; ++d) {
      away = std::max(away, std::fabs(double(x[k * D_ + d])));
      spread = std::max(spread, std::fabs(double(x[k * D_ + d]) - nu_[d]));
    }
  }
  if (!(nu_norm_ < 1e15) || away < 1.3 * spread) {  // zero costs nothing
    nu_.fill(0.0f);
    nu_norm_ = 0;
  }
  return mu_norm_ < 1e15;
}

// Rows up to a factor 4 above the middle of some share a unit, and mostly all do: then places are
// indices, and a group is made while it is in the cache.
bool PowerScreen::make_groups(Poll* poll) {
  usual_ = usual();
  add_groups(0, N_);
  for (int64_t i = 0; i < N_; ++i) order_[i] = static_cast<int32_t>(i);
  Buffer<uint32_t> largest(N_);
  std::atomic<bool> wild{false}, stray{false};
  const auto some = [&](int64_t from, int64_t to) {
    for (int64_t g = from; g < to; ++g) {
      const int64_t begin = groups_[g].begin, end = begin + groups_[g].count;
      level_.largest(y_ + begin * D_, mu_.data(), end - begin, D_, largest.data() + begin);
      const uint32_t most = *std::max_element(largest.data() + begin, largest.data() + end);
      if (!(bits_float(most) < 1e15f)) wild = true;
      if ((most >> 24) > usual_) stray = true;
      if (!stray && !wild) quantise(most, &groups_[g]);
    }
  };
  parallel_for(static_cast<int64_t>(groups_.size()), 1, some, poll);
  if (wild) return false;
  if (!stray) return true;
  order(largest);
  most_lane_ = 0;
  const auto again = [&](int64_t from, int64_t to) {
    for (int64_t g = from; g < to; ++g) {
      uint32_t most = 0;
      for (int64_t k = groups_[g].begin; k < groups_[g].begin + groups_[g].count; ++k) {
        most = std::max(most, largest[order_[k]]);
      }
      quantise(most, &groups_[g]);
    }
  };
  parallel_for(static_cast<int64_t>(groups_.size()), 1, again, poll);
  return true;
}

// Of the largest coordinates of a row, in steps of a factor 4: one more than the middle of some.
uint32_t PowerScreen::usual() const {
  Vector<uint32_t> some;
  for (int64_t i = 0; i < N_; i += std::max<int64_t>(1, N_ / kSomeTargets)) {
    some.push_back(0);
    level_.largest(y_ + i * D_, mu_.data(), 1, D_, &some.back());
  }
  std::nth_element(some.begin(), some.begin() + some.size() / 2, some.end());
  return (some[some.size() / 2] >> 24) + 1;
}

// Places from `begin` on.
void PowerScreen::add_groups(int64_t begin, int64_t count) {
  const int64_t most = std::clamp<int64_t>(kGroupBytes / (4 * steps_), 96, 4092) / 12 * 12;
  for (; count > 0; begin += most, count -= most) {
    groups_.push_back({begin, std::min(most, count), 0, 0, 0, 0, -kInfinity, 0, 0});
  }
}

// Places: buckets of a factor 4 of the largest coordinate, the usual ones in one of them; in a
// bucket the order given, so that scores do not rise along the scan.
void PowerScreen::order(const Buffer<uint32_t>& largest) {
  int64_t count[256] = {}, place[256];
  for (const uint32_t bits : largest) ++count[std::max(bits >> 24, usual_)];
  groups_.clear();
  int64_t begin = 0;
  for (int k = 255; k >= 0; --k) {
    place[k] = begin;
    add_groups(begin, count[k]);
    begin += count[k];
  }
  for (int64_t i = 0; i < N_; ++i) {
    order_[place[std::max(largest[i] >> 24, usual_)]++] = static_cast<int32_t>(i);
  }
}

// `bits`: of the largest coordinate.
void PowerScreen::quantise(uint32_t bits, ScreenGroup* group) {
  const int64_t begin = group->begin;
  const double most = bits_float(bits);
  group->unit = most > 1e-15 ? up(most / most_target_ * 1.000001) : 1e-15f;
  ScreenTargets targets{y_,
                        order_.data() + begin,
                        group->count,
                        D_,
                        steps_,
                        sums_,
                        mu_.data(),
                        nu_norm_ > 0 ? nu_.data() : nullptr,
                        group->unit,
                        integers_.data() + begin * 4 * steps_,
                        level_.wide ? nullptr : start_.data() + begin * sums_,
                        norm_.data() + begin,
                        residue_.data() + begin,
                        total_.data() + begin,
                        nu_norm_ > 0 ? lift_.data() + begin : nullptr,
                        0,
                        0,
                        0,
                        0};
  level_.targets_in(&targets);
  group->norm = targets.most_norm;
  group->residue = targets.most_residue;
  group->reach = targets.most_reach;
  int32_t most_lane = most_lane_.load(std::memory_order_relaxed);
  while (targets.most_lane > most_lane &&
         !most_lane_.compare_exchange_weak(most_lane, targets.most_lane)) {
  }
}

bool PowerScreen::build(const ScreenKernels& level, const float* y, int64_t N, int64_t D,
                        const float* x, int64_t B, Poll* poll) {
  const DefaultFloatMode mode;
  y_ = y;
  N_ = N;
  D_ = D;
  level_ = level;
  narrow_ = {};
#if OTCUDA_X86_LEVELS
  if (level.panel == power_screen_vnni().panel) narrow_ = power_screen_vnni_narrow();
  if (level.halves) narrow_ = power_screen_bf16_narrow();
#endif
  steps_ = level.halves ? (D + 1) / 2 : (D + 3) / 4;
  sums_ = (steps_ + kScreenSteps - 1) / kScreenSteps;
  gamma_ = double(D + 4) * 6e-8;
  if (D < 1 || D > kMostD || N >= (int64_t(1) << 30) || !centre(x, B)) return false;
  // A product and D additions, each within 2^-23 of what it is, in whatever order.
  sum_error_ = level.halves ? double(D + 8) * 1.2e-7 : 0;
  most_target_ = level.halves ? kScreenHalvesMost / std::sqrt(double(D)) : kScreenTargetMost;
  most_sample_ = level.halves ? most_target_ : level.offset() - 1;
  order_ = Buffer<int32_t>(N);
  integers_ = Buffer<int8_t>((N + kSpareRows) * 4 * steps_);
  std::fill(integers_.data() + N * 4 * steps_, integers_.end(), int8_t(0));
  start_ = Buffer<int32_t>(level_.wide ? 0 : (N + kSpareRows) * sums_, 0);
  norm_ = Buffer<float>(N);
  residue_ = Buffer<float>(N);
  total_ = Buffer<int32_t>(N);
  height_ = Buffer<float>(N);
  lift_ = Buffer<double>(nu_norm_ > 0 ? N : 0);
  if (make_groups(poll)) return true;
  groups_.clear();
  return false;
}

void PowerScreen::set_heights(const float* h) {
  const DefaultFloatMode mode;
  h_ = h;
  double shift = 0;  // <nu, mu>
  for (int64_t d = 0; d < D_; ++d) shift += double(nu_[d]) * double(mu_[d]);
  Vector<double> raised;
  for (ScreenGroup& group : groups_) {
    raised.resize(static_cast<size_t>(group.count));
    group.top = -kInfinity;
    group.height = 0;
    double least = kInfinity;
    for (int64_t k = 0; k < group.count; ++k) {
      const double a = h[order_[group.begin + k]];
      const double lift = nu_norm_ > 0 ? lift_[group.begin + k] - shift : 0;
      const bool live = a > -kInfinity;
      raised[k] = live ? a + lift + gamma_ * std::fabs(a) +
                             1e-12 * (std::fabs(a) + nu_norm_ * (group.reach + 2 * mu_norm_))
                       : -kInfinity;
      if (!live) continue;
      group.top = std::max(group.top, raised[k]);
      group.height = std::max(group.height, std::fabs(a));
      least = std::min(least, raised[k]);
    }
    group.range = group.top > -kInfinity ? group.top - least : 0;
    for (int64_t k = 0; k < group.count; ++k) {
      height_[group.begin + k] = raised[k] > -kInfinity ? up(raised[k] - group.top)
                                                        : -std::numeric_limits<float>::infinity();
    }
  }
}

}  // namespace otcuda::cpu
