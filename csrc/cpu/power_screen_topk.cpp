// SPDX-License-Identifier: Apache-2.0
// The k best targets by the screen: as the best one, with the k-th best score so far for the best.
// A pair is left out where its bound lies strictly below that, so it would enter no list.
#include "cpu/power_screen_run.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kWarmTargets = 1536, kWarmPart = 12;  // most of the warm-up, and of all targets
constexpr double kEnterCost = 3000;                     // of a list, in steps of the blocked loop

}  // namespace

class ListRun : public ScreenRun {
  using List = TopkList<float>;

 public:
  struct Out {
    float* value;    // [B, k]
    int64_t* index;  // [B, k]
    uint8_t* left;   // [B]
    int k;
  };

  ListRun(const PowerScreen& screen, bool forced, int64_t blocks, const Out& to)
      : ScreenRun(screen, forced, false, blocks),
        to_(to),
        room_((to.k + List::kStep - 1) / List::kStep * List::kStep),
        lists_(blocks * kMostSamples) {}

  void write(int64_t begin) {
    for (int64_t n = 0; n < used_; ++n) {
      const ScreenBlock& block = blocks_[n];
      for (int64_t q = 0; q < block.count; ++q, ++begin) {
        to_.left[begin] = block.lost || block.index[q] < 0 || !certain(block, q);
        if (to_.left[begin]) continue;
        const List& list = lists_[n * kMostSamples + q];
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
    const ScreenKernels& level = level_for(block->count);
    const int64_t tile = level.targets, k = to_.k, most = panel->targets / tile;
    const int64_t parts = std::min(k + k / 2 + 8, most);
    if (parts < k) return;
    const int64_t all = std::min(kWarmTargets, s_.N_ / kWarmPart) / tile;
    const int64_t tiles = std::clamp<int64_t>(all / parts, 1, most / parts);
    if (parts_.size() == 0) parts_ = Buffer<int32_t>((k + k / 2 + 8) * kMostSamples);
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
    Buffer<int32_t> row(parts);
    for (int64_t q = 0; q < block->count; ++q) {
      for (int64_t part = 0; part < parts; ++part) row[part] = parts_[part * kMostSamples + q];
      std::nth_element(row.begin(), row.begin() + k - 1, row.end(), std::greater<int32_t>());
      threshold_[q] = std::max(threshold_[q], row[k - 1] - width);
    }
  }

  void settle(ScreenBlock* block, const ScreenGroup& group, int64_t count) override {
    int64_t scored = 0;
    float scores[kScreenChains];
    int32_t target[kScreenChains];
    ScreenHit some[kScreenChains];
    for (int64_t j = 0; j < count;) {
      int64_t n = 0;
      for (; j < count && n < kScreenChains; ++j) {
        if (hits_[j].sum > threshold_[hits_[j].sample]) some[n++] = hits_[j];
      }
      if (n == 0) break;
      score(*block, group, some, n, scores, target);
      for (int64_t m = 0; m < n; ++m) {
        if (enter(block, some[m].sample, scores[m], target[m])) {
          block->raise_threshold(s_, group, some[m].sample, threshold_);
        }
      }
      scored += n;
    }
    pairs += count;
    chains += scored;
    block->spent += level_.pair_cost * double(count) +
                    (kEnterCost + level_.chain_cost * double(s_.D_)) * double(scored);
  }

  // True where the list is full and its last place has changed.
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
                       uint8_t* left, ScreenTrust trust, Poll* poll, ScreenCounts* counts) const {
  return share_out({x, B, left, trust, poll, counts}, [&](bool forced, int64_t blocks) {
    return ListRun(*this, forced, blocks, {value, index, left, k});
  });
}

}  // namespace otcuda::cpu
