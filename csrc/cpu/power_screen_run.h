// SPDX-License-Identifier: Apache-2.0
// What the argmax and the lists of a screen share: samples as integers, and their way past the
// groups of targets. Certificate: docs/power_argmax.md.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "common/simd.h"
#include "common/threads.h"
#include "cpu/power_screen.h"

namespace otcuda::cpu {

constexpr int64_t kMostSamples = 64;      // of a block, on any level
constexpr int64_t kRoom = 1024;           // pairs that wait
constexpr int64_t kScreenChains = 128;    // pairs that are scored in one call
constexpr int64_t kRunBytes = 1 << 17;    // integers of samples that a thread keeps
constexpr int64_t kTrialSamples = 32;     // that tell whether the bound bites
constexpr double kLeastThreshold = -9e8;  // above the bound of what cannot win
constexpr int32_t kNoThreshold = std::numeric_limits<int32_t>::max();  // of samples not there
constexpr double kNothing = -std::numeric_limits<double>::infinity();
constexpr double kMostWidth = 1e8;    // in units; a bound lies as far above 0 at most
constexpr double kChainStart = 1200;  // steps of the blocked loop
constexpr double kMostEarly = 10;     // in a trial's earlier half, of what the later one may spend
constexpr double kEarlyPart = 4.5;    // the same where it is taken to bite: most pairs come early
constexpr double kLaterPart = 0.8;    // of what may be spent, for what 32 samples do not show
constexpr double kHalvesWin =
    0.38;  // from there on bfloat16 takes less, where there is such a level
constexpr double kFirstPart = 0.35;  // of what may be spent, before any target is left out

// The scores of pairs at the level in force, which may have come after the integers.
void (*power_screen_chains())(const ScreenPairs&);

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
  void raise_threshold(const PowerScreen& s, const ScreenGroup& g, int64_t sample,
                       int32_t* threshold) const {
    const double t = exact_threshold(s, g, sample);
    const double fits = std::min(std::max(t, kLeastThreshold), 2e9);
    threshold[sample] = std::max(threshold[sample], static_cast<int32_t>(fits));
  }
  // The same for those whose bits are set.
  void raise_thresholds(const PowerScreen& s, const ScreenGroup& g, uint64_t samples,
                        int32_t* threshold) const {
    for (; samples != 0; samples &= samples - 1) {
      raise_threshold(s, g, __builtin_ctzll(samples), threshold);
    }
  }
  // The same where nothing limits it. Only where it is kLeastThreshold or more have all targets
  // been looked at that could reach it.
  double exact_threshold(const PowerScreen& s, const ScreenGroup& g, int64_t sample) const;
  void bounds(const PowerScreen& s, const ScreenKernels& level, const ScreenGroup& g,
              int32_t* bound) const;
  // Whether the best is another one now.
  bool offer(int64_t sample, float score, int32_t target) {
    if (index[sample] < 0 || score > best[sample] ||
        (score == best[sample] && target < index[sample])) {
      best[sample] = score;
      index[sample] = target;
      return true;
    }
    return false;
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

// Blocks that meet the targets group by group.
class ScreenRun {
 public:
  // `proves`: whether one good sum may raise a threshold.
  ScreenRun(const PowerScreen& screen, bool forced, bool proves, int64_t blocks)
      : s_(screen),
        level_(screen.level_),
        chains_(power_screen_chains()),
        forced_(forced),
        proves_(proves),
        packed_(blocks * level_.samples * 4 * screen.steps_),
        row_(4 * screen.steps_),
        blocks_(blocks),
        hits_(kRoom + 1) {
    int64_t most = 0;
    for (const ScreenGroup& g : s_.groups_) most = std::max(most, g.count);
    bound_ = Buffer<int32_t>(most + std::max(level_.targets, s_.narrow_.targets));
  }
  virtual ~ScreenRun() = default;

  // Samples [begin, end) of x.
  void run(const float* x, int64_t begin, int64_t end) {
    used_ = 0;
    for (int64_t b = begin; b < end; ++used_) {
      uint8_t* const to = packed_.data() + used_ * level_.samples * 4 * s_.steps_;
      const int64_t count = std::min<int64_t>(s_.block_samples(end - b), end - b);
      ScreenBlock& block = blocks_[used_];
      block.out_of_range = block.lost =
          !block.pack(s_, level_for(count), x + b * s_.D_, count, to, row_.data());
      begin_block(used_);
      b += count;
    }
    bool first = true;
    for (const ScreenGroup& group : s_.groups_) {
      if (!(group.top > kNothing)) continue;
      for (int64_t k = 0; k < used_; ++k) {
        if (!blocks_[k].lost) meet(&blocks_[k], group, first);
        if (blocks_[k].lost && trial_) return;
        heartbeat();
      }
      first = first && group.count < warm_from();
    }
  }

  // Whether other samples would cost as little as it takes: work beyond the integers, as a part of
  // the blocked loop's; that of lost blocks is done again.
  bool pays() const {
    double sum = 0, samples = 0;
    for (int64_t k = 0; k < used_; ++k) {
      if (blocks_[k].out_of_range) continue;  // was hardly looked at, and others may do
      sum += blocks_[k].spent / all(1);
      if (blocks_[k].lost) sum += double(blocks_[k].count);
      samples += double(blocks_[k].count);
    }
    return sum <= most_spent() * samples &&
           sum + start_cost() * double(chains) / all(1) <= (may_spend() - sample_cost()) * samples;
  }

  // One block that is lost decides, and none goes on once it must be.
  void give_up_early() { trial_ = true; }

  // Whether another `N` targets would cost as little as it takes.
  bool bites(int64_t N) const {
    double steps = 0, spent = 0, early = 0;
    for (int64_t k = 0; k < used_; ++k) {
      if (blocks_[k].lost) return false;
      steps += double(blocks_[k].count) * double(s_.D_);
      spent += blocks_[k].spent;
      early += blocks_[k].spent_early;
    }
    const double half = steps * double(s_.N_ - s_.N_ / 2);
    const double early_starts = start_cost() * double(early_chains_);
    const double later = spent - early;
    const double with_starts = later + start_cost() * double(chains) - early_starts;
    return later <= most_spent() * half * (simple() ? 1 : kLaterPart) &&
           2 * spent <= most_spent() * steps * double(N) &&
           with_starts <= kLaterPart * may_spend() * half &&
           early + early_starts <= kEarlyPart * may_spend() * half;
  }

  // On pairs, as a part of the blocked loop, where the screen still wins.
  virtual double most_spent() const {
    return simd_bf16_too() && !level_.halves ? std::min(kHalvesWin, level_.most_spent)
                                             : level_.most_spent;
  }

  int64_t pairs = 0, chains = 0;

 protected:
  void meet(ScreenBlock* block, const ScreenGroup& group, bool first) {
    if (block->out_of_reach(s_, group)) return;
    const double width = block->width(s_, group);
    if (!(width < kMostWidth)) {
      block->lost = true;
      return;
    }
    const double whole = all(block->count);
    const double seen = double(group.begin + group.count) / double(s_.N_);
    const double few = block->count <= s_.narrow_.samples ? 2 : 1;  // whose average says less
    const double part = few * (kFirstPart + (1 - kFirstPart) * seen);
    double most = forced_ ? most_forced() * whole : most_spent() * whole * part;
    if (trial_) most = std::min(most, kMostEarly / 2 * most_spent() * whole);
    std::fill_n(threshold_, block->count, static_cast<int32_t>(kLeastThreshold));
    const ScreenKernels& level = level_for(block->count);
    std::fill(threshold_ + block->count, threshold_ + level.samples, kNoThreshold);
    block->raise_thresholds(s_, group, threshold_);
    block->bounds(s_, level, group, bound_.data());
    ScreenPanel panel{block->packed,
                      s_.integers_.data() + group.begin * 4 * s_.steps_,
                      level_.wide ? nullptr : s_.start_.data() + group.begin * s_.sums_,
                      bound_.data(),
                      (group.count + level.targets - 1) / level.targets * level.targets,
                      s_.steps_,
                      threshold_,
                      proves_ ? static_cast<int32_t>(std::ceil(width)) : kScreenProvesNothing,
                      hits_.data(),
                      0,
                      trial_ ? int64_t(2 * level.targets * level.samples) : kRoom,
                      highest_};
    if (first) warm(block, group, &panel);
    const int64_t all_targets = panel.targets, early = early_targets(group, all_targets, level);
    for (int64_t i = 0; i < all_targets;) {
      panel.targets = i < early ? early : all_targets;
      i = level.panel(&panel, i);
      const int64_t before = chains;
      settle(block, group, panel.count);
      panel.count = 0;
      if (i <= early) {
        block->spent_early = block->spent;
        early_chains_ += chains - before;
      }
      if (block->spent > most) {
        block->lost = true;
        return;
      }
    }
  }

  // The blocked loop's work for so many samples.
  double all(int64_t samples) const { return double(samples) * double(s_.N_) * double(s_.D_); }
  // Levels whose sums cost nearly half of the blocked loop, and lists, are taken to have no others.
  bool simple() const { return !level_.wide || level_.halves || !proves_; }
  // What a chain costs beyond its steps, for getting at the rows; what is then left for pairs and
  // chains where sums and bounds take the rest; and of that what each sample's packing and warm
  // start take where targets are few. All measured, and all of the calls that make the integers.
  double start_cost() const { return simple() ? 0 : kChainStart; }
  double may_spend() const { return simple() ? 1e9 : 0.73 - 1.6 / double(s_.D_); }
  double sample_cost() const { return simple() ? 0 : std::min(0.29, 19e3 / all(1)); }

  // Of a group's targets, those in the earlier half of all; whole tiles.
  int64_t early_targets(const ScreenGroup& group, int64_t targets,
                        const ScreenKernels& level) const {
    const int64_t early = (s_.N_ / 2 - group.begin) / level.targets * level.targets;
    return std::clamp<int64_t>(early, 0, targets);
  }

  // Thresholds from the largest sums of some targets of the first group.
  virtual void warm(ScreenBlock* block, const ScreenGroup& group, ScreenPanel* panel) = 0;
  // The contract's own scores of the pairs that are still above their thresholds.
  virtual void settle(ScreenBlock* block, const ScreenGroup& group, int64_t count) = 0;
  // Targets of a group that is large enough for it.
  virtual int64_t warm_from() const { return 0; }
  // What may be spent where the screen is forced, as a part of the blocked loop.
  virtual double most_forced() const { return 2; }
  // A newly packed block.
  virtual void begin_block(int64_t) {}

  // The kernels for a block of so many samples.
  const ScreenKernels& level_for(int64_t count) const {
    return count <= s_.narrow_.samples ? s_.narrow_ : level_;
  }

  // The scores of up to kScreenChains pairs; which targets they are.
  void score(const ScreenBlock& block, const ScreenGroup& group, const ScreenHit* hits,
             int64_t count, float* scores, int32_t* target) {
    const float *x[kScreenChains], *y[kScreenChains];
    float h[kScreenChains];
    for (int64_t k = 0; k < count; ++k) {
      target[k] = s_.order_[group.begin + hits[k].target];
      x[k] = block.x + hits[k].sample * s_.D_;
      y[k] = s_.y_ + target[k] * s_.D_;
      h[k] = s_.h_[target[k]];
    }
    chains_({x, y, h, s_.D_, count, scores});
  }

  const PowerScreen& s_;
  const ScreenKernels& level_;
  void (*const chains_)(const ScreenPairs&);
  const bool forced_, proves_;
  bool trial_ = false;
  int64_t early_chains_ = 0;  // of the earlier half of the targets
  Buffer<uint8_t> packed_;
  Buffer<int8_t> row_;
  Buffer<ScreenBlock> blocks_;
  Buffer<ScreenHit> hits_;
  Buffer<int32_t> bound_;
  alignas(64) int32_t threshold_[kMostSamples], highest_[kMostSamples];
  int64_t used_ = 0;
};

// How samples go past the targets.
struct ScreenCall {
  const float* x;  // [B, D]
  int64_t B;
  uint8_t* left;  // [B]
  ScreenTrust trust;
  Poll* poll;
  ScreenCounts* counts;  // or null
};

// Blocks of samples shared out among threads. `make(forced, blocks)` is the run of some of them,
// whose write(begin) hands on what it has found. False: most of the work was for nothing, so the
// rest is left over.
template <class Make>
bool PowerScreen::share_out(const ScreenCall& call, const Make& make) const {
  const int64_t B = call.B, block = level_.samples, blocks = (B + block - 1) / block;
  const int threads = threads_for(0.01 * double(B) * double(N_) * double(D_));
  const int64_t most = std::clamp<int64_t>(kRunBytes / (block * 4 * steps_), 4, 64);
  const int64_t share = std::clamp<int64_t>((blocks + threads - 1) / threads, 1, most);
  std::atomic<int64_t> pairs{0}, chains{0};
  std::atomic<bool> stop{false};
  const bool forced = call.trust == ScreenTrust::forced;
  const auto some = [&](int64_t begin, int64_t end) {
    if (stop) {
      std::fill(call.left + begin, call.left + end, uint8_t(1));
      return;
    }
    auto run = make(forced, blocks_of(end - begin));
    run.run(call.x, begin, end);
    run.write(begin);
    if (!forced && !run.pays()) stop = true;
    pairs += run.pairs;
    chains += run.chains;
  };
  const int64_t first =
      call.trust == ScreenTrust::trial ? std::min(B, std::max(kTrialSamples, block)) : 0;
  if (first > 0) parallel_for(first, first, some, call.poll, 1);
  const int64_t rest = B - first;
  const auto others = [&](int64_t begin, int64_t end) { some(first + begin, first + end); };
  if (rest > 0) parallel_for(rest, share * block, others, call.poll, threads);
  if (call.counts != nullptr) *call.counts = {pairs, chains};
  return !stop;
}

}  // namespace otcuda::cpu
