// SPDX-License-Identifier: Apache-2.0
// The k best targets by the tree of an index, or by the blocked loop where that is less work.
#include <algorithm>
#include <limits>
#include <memory>
#include <mutex>
#include <string>

#include "common/backend_info.h"
#include "common/check.h"
#include "common/power_index.h"
#include "common/power_topk.h"
#include "common/threads.h"
#include "cpu/power_index.h"
#include "cpu/power_screen.h"
#include "cpu/power_topk.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kGrain = 1024;     // samples of a task, most
constexpr int64_t kBeat = 4096;      // visits between heartbeats
constexpr double kListCost = 1.5;    // of the blocked loop, against the best alone
constexpr int64_t kTrial = 32;       // samples of a trial
constexpr int64_t kTrialBatch = 64;  // samples from which on a trial is worth it
constexpr int64_t kOutOfRange = -2;  // an index that no one sees

bool tree_topk(const TreeView<float>& tree, TreeTopk<float>* q) {
  return tree_kernels().topk_f32(tree, q);
}
bool tree_topk(const TreeView<double>& tree, TreeTopk<double>* q) {
  return tree_kernels().topk_f64(tree, q);
}
void tree_topk_of(const TreeView<float>& tree, const TreeQueue<TreeTopk<float>>& queue) {
  tree_kernels().many_topk_f32(tree, queue);
}
void tree_topk_of(const TreeView<double>& tree, const TreeQueue<TreeTopk<double>>& queue) {
  tree_kernels().many_topk_f64(tree, queue);
}

}  // namespace

// Prepares a query of q->score and q->place [k]; false where the sample is out of the tree's range.
template <class T>
bool PowerIndex<T>::topk_query(const T* x, int k, TreeTopk<T>* q) const {
  if (!query(x, q)) return false;
  q->k = k;
  std::fill_n(q->score, k, -std::numeric_limits<T>::infinity());
  std::fill_n(q->place, k, std::numeric_limits<int32_t>::max());
  return true;
}

// Some samples by the tree, which gives up when it would cost more than the blocked loop.
template <class T>
bool PowerIndex<T>::topk_pays(const T* x, int64_t B, int k, Poll* poll) {
  const int known = topk_verdict_;
  if (known / 2 == k) return known % 2 == 1;
  if (B < kTrialBatch) return false;
  bool pays = true;
  const auto trial = [&](int64_t, int64_t) {
    T score[kMostTopk];
    int32_t place[kMostTopk];
    const TreeView<T> tree = tree_.view();
    int64_t left =
        std::max<int64_t>(1, int64_t(kListCost * double(N_) / tree_visit_cost(N_, D_))) * kTrial;
    for (int64_t b = 0; b < kTrial && left > 0; ++b) {
      TreeTopk<T> q{};
      q.score = score;
      q.place = place;
      if (!topk_query(x + b * (B / kTrial) * D_, k, &q)) continue;
      q.most = left;
      tree_topk(tree, &q);
      left -= q.nodes + q.leaves;
      heartbeat();
    }
    pays = left > 0;
  };
  parallel_for(1, 1, trial, poll, 1);
  topk_verdict_ = 2 * k + int(pays);
  return pays;
}

// Some samples in order, in kTreeTogether stretches.
template <class T>
class PowerIndex<T>::TopkWalk {
 public:
  TopkWalk(const PowerIndex& index, const T* x, int64_t count, int k, T* value, int64_t* place)
      : index_(index), x_(x), k_(k), value_(value), place_(place) {
    for (int slot = 0; slot < kTreeTogether; ++slot) {
      at_[slot] = count * slot / kTreeTogether - 1;
      end_[slot] = count * (slot + 1) / kTreeTogether;
    }
  }

  void run() { tree_topk_of(index_.tree_.view(), {&TopkWalk::next, this}); }

  int64_t scores = 0, out = 0;

 private:
  static bool next(void* context, int slot, TreeTopk<T>* q) {
    return static_cast<TopkWalk*>(context)->advance(slot, q);
  }

  bool advance(int slot, TreeTopk<T>* q) {
    if (started_[slot]) finish(slot, *q);
    started_[slot] = false;
    while (!started_[slot] && ++at_[slot] < end_[slot]) {
      *q = {};
      q->score = scores_[slot];
      q->place = targets_[slot];
      started_[slot] = index_.topk_query(x_ + at_[slot] * index_.D_, k_, q);
      if (!started_[slot]) leave_out(slot);
    }
    return started_[slot];
  }

  void finish(int slot, const TreeTopk<T>& q) {
    visits_ += q.nodes + q.leaves;
    if (visits_ > kBeat) heartbeat(), visits_ = 0;
    scores += q.leaves * kTreeWidth;
    if (q.best > -std::numeric_limits<T>::infinity()) {
      std::copy_n(q.score, k_, value_ + at_[slot] * k_);
      std::copy_n(q.place, k_, place_ + at_[slot] * k_);
    } else {  // the list is not full
      leave_out(slot);
    }
  }

  void leave_out(int slot) {
    place_[at_[slot] * k_] = kOutOfRange;
    ++out;
  }

  const PowerIndex& index_;
  const T* const x_;
  const int k_;
  T* const value_;
  int64_t* const place_;
  int64_t at_[kTreeTogether], end_[kTreeTogether], visits_ = 0;
  bool started_[kTreeTogether] = {};
  T scores_[kTreeTogether][kMostTopk];
  int32_t targets_[kTreeTogether][kMostTopk];
};

template <class T>
void PowerIndex<T>::topk_by_tree(const T* x, int64_t B, int k, T* value, int64_t* index,
                                 Poll* poll) const {
  std::atomic<int64_t> scores{0}, plain{0};
  const auto rows = [&](int64_t begin, int64_t end) {
    TopkWalk walk(*this, x + begin * D_, end - begin, k, value + begin * k, index + begin * k);
    walk.run();
    scores += walk.scores;
    plain += walk.out;
  };
  const int threads = threads_for(5e3 * double(B));
  const int64_t share = (B + threads - 1) / threads;
  parallel_for(B, std::clamp<int64_t>(threads > 1 ? share / 4 : share, 16, kGrain), rows, poll,
               threads);
  count_backend_path(BackendPath::power_topk_tree, B - plain);
  count_backend_path(BackendPath::power_topk_tree_scores, scores);
  for (int64_t b = 0; plain > 0 && b < B;) {  // runs of samples that the tree cannot take
    int64_t end = b;
    while (end < B && index[end * k] == kOutOfRange) ++end;
    if (end > b) {
      power_topk_blocked(TopkProblem<T>{x + b * D_, y_.data(), h_.data(), 1, end - b, N_, D_, k,
                                        value + b * k, index + b * k},
                         poll);
    }
    b = end + 1;
  }
}

// Whether the tree is to answer; an error where it cannot but must.
template <class T>
bool PowerIndex<T>::topk_takes_tree(const T* x, int64_t B, int k, IndexMethod method, Poll* poll) {
  OTCUDA_CHECK(heights_set_, "the index has no heights yet; call set_heights(h) first");
  OTCUDA_CHECK(method != IndexMethod::tree || has_tree(),
               "method is 'tree', but the index has none: it holds few targets, or some out of "
               "range");
  if (B == 0 || !has_tree() || !heights_fit_) return false;
  return method == IndexMethod::tree ||
         (method == IndexMethod::automatic && topk_pays(x, B, k, poll));
}

// True where the screen has answered. Forced: also where it does not seem to pay.
template <class T>
bool PowerIndex<T>::topk_screened(const T* x, int64_t B, int k, T* value, int64_t* index,
                                  bool forced, Poll* poll) {
  if constexpr (sizeof(T) == 4) {
    if (!heights_fit_ || B == 0 ||
        (!forced && (k > topk_screen_most_ || !power_screen_pays_topk(B, N_, D_, k, true)))) {
      return false;
    }
    const std::shared_ptr<PowerScreen> screen = this->screen(x, B, poll);
    if (screen->empty()) return false;
    const bool bites = power_topk_screened(
        *screen, TopkProblem<T>{x, y_.data(), h_.data(), 1, B, N_, D_, k, value, index},
        forced ? ScreenTrust::forced : ScreenTrust::trial, poll);
    if (!forced && !bites) topk_screen_most_ = std::min<int>(topk_screen_most_, k - 1);
    return true;
  } else {
    return false;
  }
}

template <class T>
void PowerIndex<T>::topk(const T* x, int64_t B, int k, T* value, int64_t* index, IndexMethod method,
                         Poll* poll) {
  const std::shared_lock<std::shared_mutex> lock(mutex_);
  const bool forced = method == IndexMethod::screen;
  if (topk_takes_tree(x, B, k, method, poll)) return topk_by_tree(x, B, k, value, index, poll);
  if ((forced || method == IndexMethod::automatic) &&
      topk_screened(x, B, k, value, index, forced, poll)) {
    return;
  }
  power_topk_blocked(TopkProblem<T>{x, y_.data(), h_.data(), 1, B, N_, D_, k, value, index}, poll);
}

template <class T>
void PowerIndex<T>::argmax_gap(const T* x, int64_t B, T* value, int64_t* index, T* gap,
                               IndexMethod method, Poll* poll) {
  const std::shared_lock<std::shared_mutex> lock(mutex_);
  const bool tree = topk_takes_tree(x, B, 2, method, poll);
  Buffer<T> values(2 * B);
  Buffer<int64_t> indices(2 * B);
  const bool forced = method == IndexMethod::screen;
  if (tree) {
    topk_by_tree(x, B, 2, values.data(), indices.data(), poll);
  } else if (!(forced || method == IndexMethod::automatic) ||
             !topk_screened(x, B, 2, values.data(), indices.data(), forced, poll)) {
    power_argmax_gap(GapProblem<T>{x, y_.data(), h_.data(), 1, B, N_, D_, value, index, gap}, poll);
    return;
  }
  for (int64_t b = 0; b < B; ++b) {
    value[b] = values[2 * b];
    index[b] = indices[2 * b];
    const T second =
        indices[2 * b + 1] < 0 ? -std::numeric_limits<T>::infinity() : values[2 * b + 1];
    gap[b] = value[b] == second ? T(0) : value[b] - second;
  }
}

template <class T>
void PowerIndex<T>::targets(const int64_t* index, int64_t M, T* out) const {
  for (int64_t m = 0; m < M; ++m) {
    const int64_t i = index[m];
    OTCUDA_CHECK(i >= -1 && i < N_, "index[" + std::to_string(m) + "] is " + std::to_string(i) +
                                        ", expected -1 to N - 1 = " + std::to_string(N_ - 1));
    if (i < 0) {
      std::fill_n(out + m * D_, D_, T(0));
    } else {
      std::copy_n(y_.data() + i * D_, D_, out + m * D_);
    }
  }
}

// Members by name: power_index.cpp instantiates the class where these are not defined.
#define OTCUDA_TOPK_OF(T)                                                                        \
  template bool PowerIndex<T>::topk_query(const T*, int, TreeTopk<T>*) const;                    \
  template bool PowerIndex<T>::topk_pays(const T*, int64_t, int, Poll*);                         \
  template void PowerIndex<T>::topk_by_tree(const T*, int64_t, int, T*, int64_t*, Poll*) const;  \
  template bool PowerIndex<T>::topk_takes_tree(const T*, int64_t, int, IndexMethod, Poll*);      \
  template bool PowerIndex<T>::topk_screened(const T*, int64_t, int, T*, int64_t*, bool, Poll*); \
  template void PowerIndex<T>::argmax_gap(const T*, int64_t, T*, int64_t*, T*, IndexMethod,      \
                                          Poll*);                                                \
  template void PowerIndex<T>::topk(const T*, int64_t, int, T*, int64_t*, IndexMethod, Poll*);   \
  template void PowerIndex<T>::targets(const int64_t*, int64_t, T*) const
OTCUDA_TOPK_OF(float);
OTCUDA_TOPK_OF(double);
#undef OTCUDA_TOPK_OF

}  // namespace otcuda::cpu
