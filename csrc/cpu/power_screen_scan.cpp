// SPDX-License-Identifier: Apache-2.0
// Samples into integers, thresholds, and what to do with the pairs above them.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "common/host_device.h"
#include "common/power_argmax.h"
#include "common/threads.h"
#include "cpu/power_screen.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kMostSamples = 64;    // of a block, on any level
constexpr int64_t kRoom = 1024;         // pairs that wait
constexpr int64_t kRunBytes = 1 << 17;  // integers of samples that a thread keeps
constexpr int64_t kWarmPart = 12, kLeastWarm = 96, kMostWarm = 384;  // targets of the warm-up
constexpr int64_t kTrialSamples = 32;     // that tell whether the bound bites
constexpr double kLeastThreshold = -9e8;  // above the bound of what cannot win
constexpr int32_t kNoThreshold = std::numeric_limits<int32_t>::max();  // of samples not there
constexpr double kFirstPart = 0.35;  // of what may be spent, before any target is left out
constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

// Some samples: their integers, the errors of those, and the winners so far.
class ScreenBlock {
 public:
  // False where a number is out of range.
  bool pack(const PowerScreen& s, const ScreenKernels& level, const float* x, int64_t count,
            uint8_t* packed, int8_t* row);
  // Whether no target of the group can reach any sample's best.
  bool out_of_reach(const PowerScreen& s, const ScreenGroup& g) const;
  // How far a target of the group may be overestimated, in units; the scan takes up to 1e8.
  double width(const PowerScreen& s, const ScreenGroup& g) const;
  // Of all samples: a sum up to the threshold proves that the score is no winner.
  void raise_thresholds(const PowerScreen& s, const ScreenGroup& g, int32_t* threshold) const;
  void bounds(const PowerScreen& s, const ScreenKernels& level, const ScreenGroup& g,
              int32_t* bound) const;
  void offer(int64_t sample, float score, int32_t target) {
    if (index[sample] < 0 || score > best[sample] ||
        (score == best[sample] && target < index[sample])) {
      best[sample] = score;
      index[sample] = target;
    }
  }
  void scale_errors(double factor) {
    residue_ *= factor;
    reach_ *= factor;
  }
  double unit(const ScreenGroup& g) const { return double(unit_) * double(g.unit); }

  const float* x = nullptr;
  int64_t count = 0;
  const uint8_t* packed = nullptr;
  float best[kMostSamples];
  int32_t index[kMostSamples];        // -1 before the first
  double spent = 0, spent_early = 0;  // and of that, on the earlier half of the targets
  bool lost = false, out_of_range = false;

 private:
  // Rows into integers of this unit; the most that a 16-bit sum has of integer^2.
  int32_t quantise(const PowerScreen& s, const ScreenKernels& level, uint8_t* to, int8_t* row);

  float unit_ = 1;
  double residue_ = 0, reach_ = 0, norm_ = 0;  // the most of |x' - x^|, |x'|, |x|
  double constant_[kMostSamples];              // <x, mu>
};

int32_t ScreenBlock::quantise(const PowerScreen& s, const ScreenKernels& level, uint8_t* to,
                              int8_t* row) {
  const double rounding = 1 + double(s.D_ + 8) * 1.2e-7;
  int32_t lane = 0;
  residue_ = reach_ = norm_ = 0;
  for (int64_t q = 0; q < level.samples; ++q) {
    if (q < count) {
      const ScreenRowSums sums = level.quantise(
          {x + q * s.D_, s.nu_.data(), s.D_, unit_, 1 / unit_, level.offset(), nullptr, row},
          s.mu_.data());
      lane = std::max(lane, sums.most_lane);
      const double far = std::sqrt(double(sums.square)) * rounding;
      reach_ = std::max(reach_, far * (1 + 3e-7));
      residue_ = std::max(residue_, std::sqrt(double(sums.residue)) * rounding + 3e-7 * far);
      norm_ = std::max(norm_, std::sqrt(double(sums.whole)) * rounding);
      constant_[q] = sums.middle;
    } else {
      std::fill_n(row, 4 * s.steps_, static_cast<int8_t>(level.offset()));
    }
    for (int64_t k = 0; k < s.steps_; ++k) {
      std::memcpy(to + (k * level.samples + q) * 4, row + 4 * k, 4);
    }
  }
  return lane;
}

bool ScreenBlock::pack(const PowerScreen& s, const ScreenKernels& level, const float* rows,
                       int64_t samples, uint8_t* to, int8_t* row) {
  x = rows;
  count = samples;
  packed = to;
  spent = spent_early = 0;
  lost = false;
  std::fill_n(best, kMostSamples, -std::numeric_limits<float>::infinity());
  std::fill_n(index, kMostSamples, -1);
  uint32_t bits = 0;
  for (int64_t q = 0; q < count; ++q) {
    bits = std::max(bits, level.largest(x + q * s.D_, s.nu_.data(), s.D_));
  }
  const float most = bits_float(bits);
  if (!(most < 1e15f) || (most > 0 && most < 1e-15f)) return false;  // squares would not be sound
  unit_ = most > 0 ? up(double(most) / level.most() * 1.000001) : 1.0f;
  // Narrow: a 16-bit sum ends within 16 bits, by Cauchy-Schwarz on its integers.
  const double room = 32767.0 * 32767.0 / std::max(1.0, double(s.most_lane_.load()));
  for (;;) {
    const double lane = quantise(s, level, to, row);
    if (level.wide || lane <= room) return true;
    unit_ = up(double(unit_) * std::max(1.05, std::sqrt(lane / room) * 1.01));
  }
}

bool ScreenBlock::out_of_reach(const PowerScreen& s, const ScreenGroup& g) const {
  double need = kInfinity;
  for (int64_t q = 0; q < count; ++q) {
    if (index[q] < 0) return false;
    need = std::min(need, double(best[q]) - constant_[q] -
                              1e-9 * (std::fabs(double(best[q])) + std::fabs(constant_[q])));
  }
  const double most = (reach_ + s.gamma_ * norm_) * g.reach + s.gamma_ * norm_ * s.mu_norm_;
  return most * (1 + 1e-9) + g.top + 1e-9 * std::fabs(g.top) < need;
}

double ScreenBlock::width(const PowerScreen& s, const ScreenGroup& g) const {
  const double own = s.gamma_ * norm_;
  const double error = (residue_ + own) * g.norm + (reach_ + own) * g.residue;
  const double most = 2 * (error + s.gamma_ * g.height + own * s.mu_norm_) +
                      2e-12 * s.nu_norm_ * (g.reach + 2 * s.mu_norm_);
  return (most * 1.001 + 1.2e-6 * (error + g.range)) / unit(g) + 16;
}

void ScreenBlock::raise_thresholds(const PowerScreen& s, const ScreenGroup& g,
                                   int32_t* threshold) const {
  const double inverse = 1 / unit(g), own = s.gamma_ * norm_ * s.mu_norm_ + g.top;
  const double size = std::fabs(g.top) + norm_ * s.mu_norm_;
  for (int64_t q = 0; q < count; ++q) {
    const double low = best[q];  // -inf before the first
    const double rounding = 1e-12 * (std::fabs(low) + std::fabs(constant_[q]) + size);
    const double t = (low - constant_[q] - own - rounding) * inverse - 4;
    const double fits = std::min(std::max(t, kLeastThreshold), 2e9);
    threshold[q] = std::max(threshold[q], static_cast<int32_t>(fits));
  }
}

void ScreenBlock::bounds(const PowerScreen& s, const ScreenKernels& level, const ScreenGroup& g,
                         int32_t* bound) const {
  const double own = s.gamma_ * norm_;
  level.bounds({s.height_.data() + g.begin, s.norm_.data() + g.begin, s.residue_.data() + g.begin,
                s.total_.data() + g.begin, level.wide ? level.offset() : 0, up(residue_ + own),
                up(reach_ + own), static_cast<float>(1 / unit(g)), g.count, bound});
  std::fill_n(bound + g.count, level.targets, kScreenNever);
}

// Blocks that meet the targets group by group.
class ScreenRun {
 public:
  ScreenRun(const PowerScreen& screen, bool forced, int64_t blocks)
      : s_(screen),
        level_(screen.level_),
        forced_(forced),
        packed_(blocks * level_.samples * 4 * screen.steps_),
        row_(4 * screen.steps_),
        blocks_(blocks),
        hits_(kRoom) {
    int64_t most = 0;
    for (const ScreenGroup& g : s_.groups_) most = std::max(most, g.count);
    bound_ = Buffer<int32_t>(most + level_.targets);
  }

  // Samples [begin, end) of x.
  void run(const float* x, int64_t begin, int64_t end) {
    used_ = 0;
    for (int64_t b = begin; b < end; b += level_.samples, ++used_) {
      uint8_t* const to = packed_.data() + used_ * level_.samples * 4 * s_.steps_;
      const int64_t count = std::min<int64_t>(level_.samples, end - b);
      ScreenBlock& block = blocks_[used_];
      block.out_of_range = block.lost =
          !block.pack(s_, level_, x + b * s_.D_, count, to, row_.data());
    }
    bool first = true;
    for (const ScreenGroup& group : s_.groups_) {
      if (!(group.top > -kInfinity)) continue;
      for (int64_t k = 0; k < used_; ++k) {
        if (!blocks_[k].lost) meet(&blocks_[k], group, first);
        heartbeat();
      }
      first = false;
    }
  }

  // Winners of the samples from `begin` on; those without one are marked.
  void write(int64_t begin, float* value, int64_t* index, uint8_t* left) {
    for (int64_t k = 0; k < used_; ++k) {
      const ScreenBlock& block = blocks_[k];
      for (int64_t q = 0; q < block.count; ++q, ++begin) {
        left[begin] = block.lost || block.index[q] < 0;
        if (left[begin]) continue;
        value[begin] = block.best[q];
        index[begin] = block.index[q];
      }
    }
  }

  // Work beyond the integers, as a part of the blocked loop's; that of lost blocks is done again.
  double spent() const {
    double sum = 0, samples = 0;
    for (int64_t k = 0; k < used_; ++k) {
      if (blocks_[k].out_of_range) continue;  // was hardly looked at, and others may do
      sum += blocks_[k].spent / (double(s_.N_) * double(s_.D_));
      if (blocks_[k].lost) sum += double(blocks_[k].count);
      samples += double(blocks_[k].count);
    }
    return samples > 0 ? sum / samples : 0;
  }

  // Whether another `N` targets would cost as little as it takes, going by the first block.
  bool bites(int64_t N) const {
    const ScreenBlock& block = blocks_[0];
    const double all = double(block.count) * double(s_.D_);
    const double late = block.spent - block.spent_early;
    return !block.lost && late <= level_.most_spent * all * double(s_.N_ - s_.N_ / 2) &&
           2 * block.spent <= level_.most_spent * all * double(N);
  }

  int64_t pairs = 0, chains = 0;

 private:
  void meet(ScreenBlock* block, const ScreenGroup& group, bool first) {
    if (block->out_of_reach(s_, group)) return;
    const double width = block->width(s_, group);
    if (!(width < 1e8)) {
      block->lost = true;
      return;
    }
    const double all = double(block->count) * double(s_.N_) * double(s_.D_);
    const double seen = double(group.begin + group.count) / double(s_.N_);
    const double part = kFirstPart + (1 - kFirstPart) * seen;
    const double most = forced_ ? 2 * all : level_.most_spent * all * part;
    std::fill_n(threshold_, block->count, static_cast<int32_t>(kLeastThreshold));
    std::fill(threshold_ + block->count, threshold_ + level_.samples, kNoThreshold);
    block->raise_thresholds(s_, group, threshold_);
    block->bounds(s_, level_, group, bound_.data());
    ScreenPanel panel{block->packed,
                      s_.integers_.data() + group.begin * 4 * s_.steps_,
                      level_.wide ? nullptr : s_.start_.data() + group.begin * s_.sums_,
                      bound_.data(),
                      (group.count + level_.targets - 1) / level_.targets * level_.targets,
                      s_.steps_,
                      threshold_,
                      static_cast<int32_t>(std::ceil(width)),
                      hits_.data(),
                      0,
                      kRoom,
                      highest_};
    if (first) warm(&panel);
    const int64_t all_targets = panel.targets, early = early_targets(group, all_targets);
    for (int64_t i = 0; i < all_targets;) {
      panel.targets = i < early ? early : all_targets;
      i = level_.panel(&panel, i);
      settle(block, group, panel.count);
      panel.count = 0;
      if (i <= early) block->spent_early = block->spent;
      if (block->spent > most) {
        block->lost = true;
        return;
      }
    }
  }

  // Of a group's targets, those in the earlier half of all; whole tiles.
  int64_t early_targets(const ScreenGroup& group, int64_t targets) const {
    const int64_t early = (s_.N_ / 2 - group.begin) / level_.targets * level_.targets;
    return std::clamp<int64_t>(early, 0, targets);
  }

  // Thresholds from the largest sums of some targets: what the first ones prove would otherwise be
  // found pair by pair.
  void warm(ScreenPanel* panel) {
    const int64_t some = std::clamp<int64_t>(s_.N_ / kWarmPart, kLeastWarm, kMostWarm);
    std::copy(threshold_, threshold_ + level_.samples, highest_);
    level_.warm(panel, std::min(panel->targets, some));
    for (int64_t q = 0; q < level_.samples; ++q) {
      threshold_[q] = std::max(threshold_[q], highest_[q] - panel->width);
    }
  }

  // The contract's own scores of the pairs that are still above their thresholds: of each sample
  // the one with the largest sum, which rules out most of the others, then the rest.
  void settle(ScreenBlock* block, const ScreenGroup& group, int64_t count) {
    int64_t found = 0;
    for (int64_t k = 0; k < count; ++k) {
      if (hits_[k].sum > threshold_[hits_[k].sample]) hits_[found++] = hits_[k];
    }
    int32_t most[kMostSamples];
    std::copy(threshold_, threshold_ + block->count, most);
    for (int64_t k = 0; k < found; ++k) {
      most[hits_[k].sample] = std::max(most[hits_[k].sample], hits_[k].sum);
    }
    const ScreenHit* const begin = hits_.data();
    const auto first =
        std::partition(hits_.data(), hits_.data() + found,
                       [&](const ScreenHit& hit) { return hit.sum == most[hit.sample]; });
    score_all(block, group, begin, first - begin);
    int64_t kept = first - begin;
    for (int64_t k = kept; k < found; ++k) {
      if (hits_[k].sum > threshold_[hits_[k].sample]) hits_[kept++] = hits_[k];
    }
    score_all(block, group, first, begin + kept - first);
    pairs += count;
    chains += kept;
    block->spent +=
        level_.pair_cost * double(count) + level_.chain_cost * double(s_.D_) * double(kept);
  }

  void score_all(ScreenBlock* block, const ScreenGroup& group, const ScreenHit* hits,
                 int64_t count) {
    if (count == 0) return;
    for (int64_t k = 0; k < count; k += kScreenChains) {
      score(block, group, hits + k, std::min<int64_t>(kScreenChains, count - k));
    }
    block->raise_thresholds(s_, group, threshold_);
  }

  void score(ScreenBlock* block, const ScreenGroup& group, const ScreenHit* hits, int64_t count) {
    const float *x[kScreenChains], *y[kScreenChains];
    float h[kScreenChains], scores[kScreenChains];
    int32_t target[kScreenChains];
    for (int64_t k = 0; k < kScreenChains; ++k) {
      const ScreenHit& hit = hits[std::min(k, count - 1)];
      target[k] = s_.order_[group.begin + hit.target];
      x[k] = block->x + hit.sample * s_.D_;
      y[k] = s_.y_ + target[k] * s_.D_;
      h[k] = s_.h_[target[k]];
    }
    level_.chains({x, y, h, s_.D_, scores});
    for (int64_t k = 0; k < count; ++k) block->offer(hits[k].sample, scores[k], target[k]);
  }

  const PowerScreen& s_;
  const ScreenKernels& level_;
  const bool forced_;
  Buffer<uint8_t> packed_;
  Buffer<int8_t> row_;
  Buffer<ScreenBlock> blocks_;
  Buffer<ScreenHit> hits_;
  Buffer<int32_t> bound_;
  alignas(64) int32_t threshold_[kMostSamples], highest_[kMostSamples];
  int64_t used_ = 0;
};

bool PowerScreen::argmax(const float* x, int64_t B, float* value, int64_t* index, uint8_t* left,
                         ScreenTrust trust, Poll* poll, ScreenCounts* counts) const {
  const ScreenKernels& level = level_;
  const int64_t block = level.samples, blocks = (B + block - 1) / block;
  const int threads = threads_for(0.01 * double(B) * double(N_) * double(D_));
  const int64_t most = std::clamp<int64_t>(kRunBytes / (block * 4 * steps_), 4, 64);
  const int64_t share = std::clamp<int64_t>((blocks + threads - 1) / threads, 1, most);
  std::atomic<int64_t> pairs{0}, chains{0};
  std::atomic<bool> stop{false};
  const bool forced = trust == ScreenTrust::forced;
  const auto some = [&](int64_t begin, int64_t end) {
    if (stop) {
      std::fill(left + begin, left + end, uint8_t(1));
      return;
    }
    ScreenRun run(*this, forced, (end - begin + block - 1) / block);
    run.run(x, begin, end);
    run.write(begin, value, index, left);
    if (!forced && run.spent() > level.most_spent) stop = true;
    pairs += run.pairs;
    chains += run.chains;
  };
  const int64_t first =
      trust == ScreenTrust::trial ? std::min(B, std::max(kTrialSamples, block)) : 0;
  if (first > 0) parallel_for(first, first, some, poll, 1);
  const int64_t rest = B - first;
  const auto others = [&](int64_t begin, int64_t end) { some(first + begin, first + end); };
  if (rest > 0) parallel_for(rest, share * block, others, poll, threads);
  if (counts != nullptr) *counts = {pairs, chains};
  return !stop;
}

bool PowerScreen::bites(const float* x, int64_t B, int64_t N, Poll* poll) const {
  bool found = false;
  const auto block = [&](int64_t, int64_t) {
    ScreenRun run(*this, true, 1);
    run.run(x, 0, std::min<int64_t>(B, level_.samples));
    found = run.bites(N);
  };
  parallel_for(1, 1, block, poll, 1);
  return found;
}

int64_t PowerScreen::violations(const float* x, int64_t B, double factor) const {
  const ScreenKernels& level = level_;
  Buffer<uint8_t> packed(level.samples * 4 * steps_);
  Buffer<int8_t> row(4 * steps_);
  const int offset = level.wide ? 0 : level.offset();  // a wide bound holds its share
  int64_t found = 0;
  for (int64_t b = 0; b < B; b += level.samples) {
    ScreenBlock block;
    const int64_t count = std::min<int64_t>(level.samples, B - b);
    if (!block.pack(*this, level, x + b * D_, count, packed.data(), row.data())) return -1;
    block.scale_errors(factor);
    for (const ScreenGroup& g : groups_) {
      Buffer<int32_t> bound(g.count + level.targets);
      block.bounds(*this, level, g, bound.data());
      for (int64_t k = 0; k < g.count; ++k) {
        const int64_t i = order_[g.begin + k];
        int64_t sums[kMostSamples];
        for (int64_t q = 0; q < count; ++q) {
          block.best[q] = power_argmax_score(block.x + q * D_, y_ + i * D_, h_[i], D_);
          int64_t sum = bound[k];
          for (int64_t d = 0; d < 4 * steps_; ++d) {
            sum += (packed[(d / 4 * level.samples + q) * 4 + d % 4] - offset) *
                   integers_[(g.begin + k) * 4 * steps_ + d];
          }
          sums[q] = sum;
        }
        int32_t threshold[kMostSamples];
        std::fill_n(threshold, count, static_cast<int32_t>(kLeastThreshold));
        block.raise_thresholds(*this, g, threshold);
        for (int64_t q = 0; q < count; ++q) {
          found +=
              block.best[q] > -std::numeric_limits<float>::infinity() && sums[q] <= threshold[q];
        }
      }
    }
  }
  return found;
}

}  // namespace otcuda::cpu
