// SPDX-License-Identifier: Apache-2.0
// Samples into integers, thresholds, and what to do with the pairs above them.
#include <cstring>

#include "common/host_device.h"
#include "common/power_argmax.h"
#include "common/simd.h"
#include "cpu/power_screen_run.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kWarmPart = 12, kLeastWarm = 96, kMostWarm = 384;  // targets of the warm-up
constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

void (*power_screen_chains())(const ScreenPairs&) {
  switch (simd_level()) {
#if OTCUDA_X86_LEVELS
    case SimdLevel::avx512:
      return &power_screen_chains_avx512;
    case SimdLevel::avx2:
      return &power_screen_chains_avx2;
#endif
    default:
      return &power_screen_chains_portable;
  }
}

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
  residue_ += s.sum_error_ * (reach_ + residue_);  // |x^| of them
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
  uint32_t bits[kMostSamples] = {};
  level.largest(x, s.nu_.data(), count, s.D_, bits);
  const float most = bits_float(*std::max_element(bits, bits + kMostSamples));
  if (!(most < 1e15f) || (most > 0 && most < 1e-15f)) return false;  // squares would not be sound
  unit_ = most > 0 ? up(double(most) / s.most_sample_ * 1.000001) : 1.0f;
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

double ScreenBlock::exact_threshold(const PowerScreen& s, const ScreenGroup& g,
                                    int64_t sample) const {
  const double own = s.gamma_ * norm_ * s.mu_norm_ + g.top;
  const double size = std::fabs(g.top) + norm_ * s.mu_norm_;
  const double low = best[sample];  // -inf before the first
  const double rounding = 1e-12 * (std::fabs(low) + std::fabs(constant_[sample]) + size);
  return (low - constant_[sample] - own - rounding) / unit(g) - 5;
}

void ScreenBlock::raise_thresholds(const PowerScreen& s, const ScreenGroup& g,
                                   int32_t* threshold) const {
  for (int64_t q = 0; q < count; ++q) raise_threshold(s, g, q, threshold);
}

void ScreenBlock::bounds(const PowerScreen& s, const ScreenKernels& level, const ScreenGroup& g,
                         int32_t* bound) const {
  const double own = s.gamma_ * norm_;
  level.bounds({s.height_.data() + g.begin, s.norm_.data() + g.begin, s.residue_.data() + g.begin,
                s.total_.data() + g.begin, level.wide ? level.offset() : 0, up(residue_ + own),
                up(reach_ + own), static_cast<float>(1 / unit(g)), g.count, bound});
  std::fill_n(bound + g.count, level.targets, kScreenNever);
}

// Where winners go.
struct BestOut {
  float* value;
  int64_t* index;
  uint8_t* left;
};

// The best target of each sample.
class BestRun : public ScreenRun {
 public:
  BestRun(const PowerScreen& screen, bool forced, int64_t blocks, const BestOut& to)
      : ScreenRun(screen, forced, true, blocks), to_(to) {}

  // Winners of the samples from `begin` on; those without one are marked.
  void write(int64_t begin) {
    for (int64_t k = 0; k < used_; ++k) {
      const ScreenBlock& block = blocks_[k];
      for (int64_t q = 0; q < block.count; ++q, ++begin) {
        to_.left[begin] = block.lost || block.index[q] < 0;
        if (to_.left[begin]) continue;
        to_.value[begin] = block.best[q];
        to_.index[begin] = block.index[q];
      }
    }
  }

 private:
  // Thresholds from the largest sums of some targets: what the first ones prove would otherwise be
  // found pair by pair.
  void warm(ScreenBlock* block, const ScreenGroup&, ScreenPanel* panel) override {
    const ScreenKernels& level = level_for(block->count);
    const int64_t some = std::clamp<int64_t>(s_.N_ / kWarmPart, kLeastWarm, kMostWarm);
    std::copy(threshold_, threshold_ + level.samples, highest_);
    level.warm(panel, std::min(panel->targets, some));
    for (int64_t q = 0; q < level.samples; ++q) {
      threshold_[q] = std::max(threshold_[q], highest_[q] - panel->width);
    }
  }

  // The contract's own scores of the pairs that are still above their thresholds: of each sample
  // the one with the largest sum, which rules out most of the others, then the rest. What is kept
  // is nothing a branch could foresee, so all are written and some are counted.
  void settle(ScreenBlock* block, const ScreenGroup& group, int64_t count) override {
    int64_t found = keep_above(hits_.data(), count);
    int32_t most[kMostSamples];
    std::copy(threshold_, threshold_ + block->count, most);
    for (int64_t k = 0; k < found; ++k) {
      most[hits_[k].sample] = std::max(most[hits_[k].sample], hits_[k].sum);
    }
    int64_t first = 0, rest = 0;
    for (int64_t k = 0; k < found; ++k) {
      const ScreenHit hit = hits_[k];
      const bool leads = hit.sum == most[hit.sample];
      first_[first] = hits_[rest] = hit;
      first += leads;
      rest += !leads;
    }
    score_all(block, group, first_.data(), first);
    rest = keep_above(hits_.data(), rest);
    score_all(block, group, hits_.data(), rest);
    pairs += count;
    chains += first + rest;
    block->spent +=
        level_.pair_cost * double(count) + level_.chain_cost * double(s_.D_) * double(first + rest);
  }

  int64_t keep_above(ScreenHit* hits, int64_t count) const {
    int64_t kept = 0;
    for (int64_t k = 0; k < count; ++k) {
      const ScreenHit hit = hits[k];
      hits[kept] = hit;
      kept += hit.sum > threshold_[hit.sample];
    }
    return kept;
  }

  void score_all(ScreenBlock* block, const ScreenGroup& group, const ScreenHit* hits,
                 int64_t count) {
    float scores[kScreenChains];
    int32_t target[kScreenChains];
    uint64_t risen = 0;
    for (int64_t k = 0; k < count; k += kScreenChains) {
      const int64_t some = std::min<int64_t>(kScreenChains, count - k);
      score(*block, group, hits + k, some, scores, target);
      for (int64_t j = 0; j < some; ++j) {
        const int32_t q = hits[k + j].sample;
        risen |= uint64_t(block->offer(q, scores[j], target[j])) << q;
      }
    }
    block->raise_thresholds(s_, group, risen, threshold_);
  }

  Buffer<ScreenHit> first_{kRoom};  // of each sample the pair of the largest sum
  const BestOut to_;
};

bool PowerScreen::argmax(const float* x, int64_t B, float* value, int64_t* index, uint8_t* left,
                         ScreenTrust trust, Poll* poll, ScreenCounts* counts) const {
  return share_out({x, B, left, trust, poll, counts}, [&](bool forced, int64_t blocks) {
    return BestRun(*this, forced, blocks, {value, index, left});
  });
}

bool PowerScreen::bites(const float* x, int64_t B, int64_t N, Poll* poll) const {
  bool found = false;
  const auto block = [&](int64_t, int64_t) {
    const int64_t some = std::min<int64_t>(B, level_.samples);
    BestRun run(*this, true, blocks_of(some), {});
    run.give_up_early();
    run.run(x, 0, some);
    found = run.bites(N);
  };
  parallel_for(1, 1, block, poll, 1);
  return found;
}

// The least that the sum over a sample's and a target's integers may come out as; where they are
// bfloat16, rounded however the instruction likes.
int64_t PowerScreen::least_sum(const uint8_t* x, int64_t place) const {
  const int8_t* const y = integers_.data() + place * 4 * steps_;
  const int64_t stride = level_.samples * 4;
  if (!level_.halves) {
    const int offset = level_.wide ? 0 : level_.offset();  // a wide bound holds its share
    int64_t sum = 0;
    for (int64_t d = 0; d < 4 * steps_; ++d) sum += (x[d / 4 * stride + d % 4] - offset) * y[d];
    return sum;
  }
  const auto number = [](const void* from) {
    uint16_t half;
    std::memcpy(&half, from, 2);
    return double(bits_float(uint32_t(half) << 16));
  };
  double sum = 0, size = 0;
  for (int64_t d = 0; d < 2 * steps_; ++d) {
    const double product = number(x + d / 2 * stride + d % 2 * 2) * number(y + 2 * d);
    sum += product;
    size += std::fabs(product);
  }
  return static_cast<int64_t>(std::floor(sum - sum_error_ * size));
}

int64_t PowerScreen::violations(const float* x, int64_t B, double factor) const {
  const ScreenKernels& level = level_;
  Buffer<uint8_t> packed(level.samples * 4 * steps_);
  Buffer<int8_t> row(4 * steps_);
  int64_t found = 0;
  for (int64_t b = 0; b < B; b += level.samples) {
    ScreenBlock block;
    const int64_t count = std::min<int64_t>(level.samples, B - b);
    if (!block.pack(*this, level, x + b * D_, count, packed.data(), row.data())) return -1;
    block.scale_errors(factor);
    for (const ScreenGroup& g : groups_) found += violations(&block, g);
  }
  return found;
}

// A target whose bound is below kLeastThreshold is left out whatever low is: right where another
// one of its group scores more.
int64_t PowerScreen::violations(ScreenBlock* block, const ScreenGroup& g) const {
  const auto score = [&](int64_t q, int64_t k) {
    const int64_t i = order_[g.begin + k];
    return power_argmax_score(block->x + q * D_, y_ + i * D_, h_[i], D_);
  };
  Buffer<int32_t> bound(g.count + level_.targets);
  block->bounds(*this, level_, g, bound.data());
  int64_t found = 0;
  for (int64_t q = 0; q < block->count; ++q) {
    float most = -std::numeric_limits<float>::infinity();
    for (int64_t k = 0; k < g.count; ++k) most = std::max(most, score(q, k));
    for (int64_t k = 0; k < g.count; ++k) {
      block->best[q] = score(q, k);
      if (!(block->best[q] > -std::numeric_limits<float>::infinity())) continue;
      const int64_t sum = bound[k] + least_sum(block->packed + q * 4, g.begin + k);
      int32_t threshold[kMostSamples] = {};
      threshold[q] = static_cast<int32_t>(kLeastThreshold);
      block->raise_threshold(*this, g, q, threshold);
      found += sum <= threshold[q] && (sum > kLeastThreshold || block->best[q] >= most);
    }
  }
  return found;
}

}  // namespace otcuda::cpu
