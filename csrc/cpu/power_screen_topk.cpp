// SPDX-License-Identifier: Apache-2.0
// The k best targets by the screen: as the best one, with the k-th best score so far for the best.
// A pair is left out where its bound lies strictly below that, so it would enter no list.
#include "cpu/power_screen_run.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kWarmTargets = 1536, kWarmPart = 12;  // most of the warm-up, and of all targets
constexpr int64_t kMostParts = kMostTopk + kMostTopk / 2 + 8;  // whose largest sums are compared
constexpr double kEnterCost = 500;  // of a pair, in steps of the blocked loop: its place in a list
constexpr double kSlower = 0.25;    // as a part of the blocked loop: what its own lists take

}  // namespace

class ListRun : public ScreenRun {
  using List = TopkList<float>;

 public:
  struct Out {
    float* value;    // [B, k]
    int64_t* index;  // [B, k]
    uint8_t* left;   // [B]
    int k;
    const float* x;      // [B, D]
    const float* floor;  // [B], or null
  };

  ListRun(const PowerScreen& screen, bool forced, int64_t blocks, const Out& to)
      : ScreenRun(screen, forced, false, blocks),
        to_(to),
        room_((to.k + List::kStep - 1) / List::kStep * List::kStep),
        lists_(blocks * kMostSamples) {}

  double most_spent() const override { return level_.most_spent + kSlower; }

  void write(int64_t begin) {
    for (int64_t n = 0; n < used_; ++n) {
      const ScreenBlock& block = blocks_[n];
      for (int64_t q = 0; q < block.count; ++q, ++begin) {
        const List& list = lists_[n * kMostSamples + q];
        // What lies below a floor enters no list, so one that is full has missed nothing.
        const bool full = list.score[List::kBefore + to_.k - 1] > float(kNothing);
        to_.left[begin] = block.lost || !full || !certain(block, q);
        if (to_.left[begin]) continue;
        std::copy_n(list.score + List::kBefore, to_.k, to_.value + begin * to_.k);
        std::copy_n(list.index + List::kBefore, to_.k, to_.index + begin * to_.k);
      }
    }
  }

 private:
  void begin_block(int64_t n) override {
    for (int64_t q = 0; q < kMostSamples; ++q) {
      List& list = lists_[n * kMostSamples + q];
      std::fill_n(list.score, List::kBefore, std::numeric_limits<float>::infinity());
      std::fill_n(list.score + List::kBefore, kMostTopk, -std::numeric_limits<float>::infinity());
    }
    ScreenBlock& block = blocks_[n];
    if (to_.floor == nullptr) return;
    const float* const floor = to_.floor + (block.x - to_.x) / s_.D_;
    for (int64_t q = 0; q < block.count; ++q) {
      block.best[q] = floor[q];
      block.index[q] = floor[q] > float(kNothing) ? 0 : -1;
    }
  }

  int64_t warm_from() const override {
    return to_.k * std::max(level_.targets, s_.narrow_.targets);
  }
  double most_forced() const override { return 2 + to_.k; }

  // Of the best target nothing else is asked; but a k-th best may lie so far below the best of a
  // group that its integers do not reach down to it.
  bool certain(const ScreenBlock& block, int64_t q) const {
    for (const ScreenGroup& g : s_.groups_) {
      if (g.top > kNothing && !(block.exact_threshold(s_, g, q) >= kLeastThreshold)) return false;
    }
    return true;
  }

  // Parts of the targets: of their largest sums, the k-th is proved by k targets.
  void warm(ScreenBlock* block, const ScreenGroup& group, ScreenPanel* panel) override {
    if (std::count(block->index, block->index + block->count, -1) == 0) return;  // all have floors
    const ScreenKernels& level = level_for(block->count);
    const int64_t tile = level.targets, k = to_.k, most = panel->targets / tile;
    const int64_t parts = std::min(k + k / 2 + 8, most);
    if (parts < k) return;
    const int64_t all = std::min(kWarmTargets, s_.N_ / kWarmPart) / tile;
    const int64_t tiles = std::clamp<int64_t>(all / parts, 1, most / parts);
    if (parts_.size() == 0) parts_ = Buffer<int32_t>(kMostParts * kMostSamples);
    const ScreenPanel whole = *panel;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t from = part * tiles * tile;
      panel->y = whole.y + from * 4 * whole.steps;
      panel->bound = whole.bound + from;
      if (whole.start != nullptr) panel->start = whole.start + from * s_.sums_;
      std::fill_n(highest_, level.samples, kScreenNever);
      level.warm(panel, tiles * tile);
      std::copy_n(highest_, level.samples, parts_.data() + part * kMostSamples);
    }
    *panel = whole;
    const int32_t width = static_cast<int32_t>(std::ceil(block->width(s_, group)));
    int32_t row[kMostParts];
    for (int64_t q = 0; q < block->count; ++q) {
      for (int64_t part = 0; part < parts; ++part) row[part] = parts_[part * kMostSamples + q];
      threshold_[q] = std::max(threshold_[q], largest(row, parts, k) - width);
    }
  }

  // The k-th largest: the largest that k are not below. No branch depends on them.
  static int32_t largest(const int32_t* row, int64_t count, int64_t k) {
    int32_t found = kScreenNever;
    for (int64_t i = 0; i < count; ++i) {
      int32_t reach = 0;
      for (int64_t j = 0; j < count; ++j) reach += row[j] >= row[i];
      found = reach >= k && row[i] > found ? row[i] : found;
    }
    return found;
  }

  // Which scores enter a list is nothing a branch could foresee, so all are noted and some counted.
  void settle(ScreenBlock* block, const ScreenGroup& group, int64_t count) override {
    float scores[kScreenChains];
    int32_t target[kScreenChains], enters[kScreenChains];
    uint64_t risen = 0;
    for (int64_t j = 0; j < count; j += kScreenChains) {
      const ScreenHit* const hits = hits_.data() + j;
      const int64_t some = std::min<int64_t>(kScreenChains, count - j);
      score(*block, group, hits, some, scores, target);
      int64_t entering = 0;
      for (int64_t m = 0; m < some; ++m) {
        enters[entering] = static_cast<int32_t>(m);
        entering += !(scores[m] < block->best[hits[m].sample]);
      }
      for (int64_t e = 0; e < entering; ++e) {
        const int32_t m = enters[e], q = hits[m].sample;
        risen |= uint64_t(enter(block, q, scores[m], target[m])) << q;
      }
    }
    block->raise_thresholds(s_, group, risen, threshold_);
    pairs += count;
    chains += count;
    block->spent +=
        (level_.pair_cost + kEnterCost + level_.chain_cost * double(s_.D_)) * double(count);
  }

  // True where the list is full and its last place has changed, which is the block's best.
  bool enter(ScreenBlock* block, int64_t q, float score, int32_t target) {
    List& list = lists_[(block - blocks_.data()) * kMostSamples + q];
    const int last = List::kBefore + to_.k - 1;
    if (score < list.score[last]) return false;
    level_.enter(&list, room_, score, target);
    if (!(list.score[last] > block->best[q])) return false;
    block->best[q] = list.score[last];
    block->index[q] = list.index[last];
    return true;
  }

  const Out to_;
  const int room_;         // places of a list in use, whole steps
  Buffer<List> lists_;     // [blocks][kMostSamples]
  Buffer<int32_t> parts_;  // [parts][kMostSamples]
};

bool PowerScreen::topk(const float* x, int64_t B, int k, float* value, int64_t* index,
                       uint8_t* left, ScreenTrust trust, Poll* poll, ScreenCounts* counts,
                       const float* floor) const {
  return share_out({x, B, left, trust, poll, counts}, [&](bool forced, int64_t blocks) {
    return ListRun(*this, forced, blocks, {value, index, left, k, x, floor});
  });
}

}  // namespace otcuda::cpu
