// SPDX-License-Identifier: Apache-2.0
#include "cpu/top_cells_index.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/backend_info.h"
#include "common/threads.h"
#include "common/top_cells.h"
#include "cpu/power_screen_run.h"

namespace otcuda::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kMostHeight = 1e30;     // as PowerScreen::set_heights
constexpr int64_t kSome = 256;           // samples whose lists are written at a time
constexpr double kListNanoseconds = 10;  // of a place
// Spacings of a list below its last place at which the next place surely is: where it is not, the
// sample is scanned in full.
constexpr float kBelow = 4;

}  // namespace

struct TopCellsIndex::Call {
  const float* x;
  int64_t B;
  int K;
  int32_t* index;
  float* inner;
  float* cut;  // null: only winners are wanted, and K = 1
  bool start, forced;
  Poll* poll;

  int places() const { return cut == nullptr ? 1 : K + 1; }
};

void TopCellsIndex::set_heights(const float* h) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::copy_n(h, N_, h_.data());
  bool any = false;
  heights_fit_ = true;
  for (const float a : h_) {
    any |= a > -kInfinity;
    heights_fit_ &= a == -kInfinity || std::fabs(double(a)) < kMostHeight;  // false of a NaN
  }
  heights_fit_ &= any;
  most_k_ = kMostTopk;
  if (screen_ != nullptr && !screen_->empty() && heights_fit_) screen_->set_heights(h_.data());
}

bool TopCellsIndex::may_screen(const Call& call) const {
  const int k = call.places();
  if (!heights_fit_ || D_ < 1) return false;
  if (call.forced) return true;
  return k <= most_k_ && (k == 1 ? power_screen_pays(call.B, N_, D_, true)
                                 : power_screen_pays_topk(call.B, N_, D_, k, true));
}

// Integers are made when they are wanted first, and at another level anew.
PowerScreen* TopCellsIndex::screen(const float* x, int64_t B, Poll* poll) {
  if (screen_ == nullptr || (!screen_->empty() && !screen_->of_level_in_force())) {
    screen_ = std::make_unique<PowerScreen>();
    if (screen_->build(y_, N_, D_, x, B, poll)) screen_->set_heights(h_.data());
  }
  return screen_.get();
}

// Where lists may end: a little below the last place of the old ones at the new heights.
void TopCellsIndex::starts(const Call& call, Buffer<float>* floor) const {
  for (int64_t b = 0; b < call.B; ++b) {
    float least = kInfinity, most = -kInfinity;
    for (int64_t k = b * call.K; k < (b + 1) * call.K; ++k) {
      const uint32_t i = static_cast<uint32_t>(call.index[k]);
      const float score = i < N_ ? call.inner[k] + h_[i] : -kInfinity;
      least = std::min(least, score);
      most = std::max(most, score);
    }
    const float below = least - kBelow / float(call.K) * (most - least);
    (*floor)[b] = below > -kInfinity && below < kInfinity ? below : -kInfinity;
  }
}

// Lists from the places of their targets, [B, k]: inner products by the same chain.
void TopCellsIndex::write(const Call& call, const Buffer<int64_t>& places,
                          const Buffer<uint8_t>& left) const {
  const int k = call.places(), K = call.K;
  const auto chains = power_screen_chains();
  const auto some = [&](int64_t begin, int64_t end) {
    const float *x[kMostTopCells], *y[kMostTopCells];
    float none[kMostTopCells];
    std::fill_n(none, K, -0.0f);  // what a sum stays the same by
    for (int64_t b = begin; b < end; ++b) {
      if (left[b] != 0) continue;
      for (int j = 0; j < K; ++j) {
        const int64_t i = places[b * k + j];
        call.index[b * K + j] = static_cast<int32_t>(i);
        x[j] = call.x + b * D_;
        y[j] = y_ + i * D_;
      }
      chains({x, y, none, D_, K, call.inner + b * K});
    }
  };
  const double work = kListNanoseconds * double(call.B) * double(K);
  parallel_for(call.B, kSome, some, call.poll, threads_for(work));
}

void TopCellsIndex::plain(const Call& call) const {
  Buffer<float> cut(call.cut == nullptr ? call.B : 0);
  cpu::top_cells({call.x, y_, h_.data(), call.B, N_, D_, 0, call.K, call.index, call.inner,
                  call.cut == nullptr ? cut.data() : call.cut},
                 call.poll);
}

// Samples that the screen has left over, side by side through the plain loop.
void TopCellsIndex::rest(const Call& call, const Buffer<uint8_t>& left, int64_t count) const {
  Buffer<float> x(count * D_), inner(count * call.K), cut(count);
  Buffer<int32_t> index(count * call.K);
  for (int64_t b = 0, k = 0; b < call.B; ++b) {
    if (left[b] != 0) std::copy_n(call.x + b * D_, D_, x.data() + D_ * k++);
  }
  plain({x.data(), count, call.K, index.data(), inner.data(), cut.data(), false, false, call.poll});
  for (int64_t b = 0, k = 0; b < call.B; ++b) {
    if (left[b] == 0) continue;
    std::copy_n(index.data() + k * call.K, call.K, call.index + b * call.K);
    std::copy_n(inner.data() + k * call.K, call.K, call.inner + b * call.K);
    if (call.cut != nullptr) call.cut[b] = cut[k];
    ++k;
  }
}

void TopCellsIndex::run(const Call& call) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int k = call.places();
  if (call.B == 0) return;
  if (!may_screen(call) || screen(call.x, call.B, call.poll)->empty()) return plain(call);
  Buffer<float> value(call.B * k), floor(call.start ? call.B : 0);
  Buffer<int64_t> places(call.B * k);
  Buffer<uint8_t> left(call.B);
  const auto trust = call.forced ? ScreenTrust::forced : ScreenTrust::trial;
  ScreenCounts counts;
  if (call.start) starts(call, &floor);
  const bool bites =
      k == 1 ? screen_->argmax(call.x, call.B, value.data(), places.data(), left.data(), trust,
                               call.poll, &counts)
             : screen_->topk(call.x, call.B, k, value.data(), places.data(), left.data(), trust,
                             call.poll, &counts, call.start ? floor.data() : nullptr);
  if (!bites && !call.forced) most_k_ = k - 1;
  write(call, places, left);
  for (int64_t b = 0; b < call.B && call.cut != nullptr; ++b) {
    if (left[b] == 0) call.cut[b] = value[b * k + call.K];
  }
  const int64_t others = std::count(left.begin(), left.end(), 1);
  count_backend_path(BackendPath::top_cells_screen, call.B - others);
  count_backend_path(BackendPath::top_cells_screen_chains, counts.chains);
  if (others == 0) return;
  count_backend_path(BackendPath::top_cells_screen_fallbacks, others);
  rest(call, left, others);
}

void TopCellsIndex::lists(const float* x, int64_t B, int K, int32_t* index, float* inner,
                          float* cut, bool start, bool forced, Poll* poll) {
  run({x, B, K, index, inner, cut, start, forced, poll});
}

void TopCellsIndex::winners(const float* x, int64_t B, int32_t* index, float* inner, bool forced,
                            Poll* poll) {
  run({x, B, 1, index, inner, nullptr, false, forced, poll});
}

}  // namespace otcuda::cpu
