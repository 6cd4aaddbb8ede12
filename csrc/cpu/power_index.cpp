// SPDX-License-Identifier: Apache-2.0
// Building the tree, its bounds, and when it is used; a query is power_index_body.h.
#include "cpu/power_index.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <mutex>
#include <string>
#include <utility>

#include "common/backend_info.h"
#include "common/check.h"
#include "common/power_argmax.h"
#include "common/power_index.h"
#include "common/simd.h"
#include "common/threads.h"
#include "cpu/power_argmax.h"
#include "cpu/power_screen.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kGrain = 4096;        // samples of a task, most
constexpr int64_t kBeat = 4096;         // visits between heartbeats
constexpr int64_t kTrial = 32;          // samples of a trial
constexpr int64_t kTrialBatch = 64;     // samples from which on a trial is worth it
constexpr int64_t kOutOfRange = -2;     // an index that no one sees
constexpr int64_t kLeastTargets = 512;  // fewer are no work for a tree
constexpr double kCacheBytes = 1 << 24;

}  // namespace

// About 30 ns, and what its bytes take where the tree does not fit the cache, against 0.008 ns for
// a target and dimension (0.016 without AVX-512).
double tree_visit_cost(int64_t N, int64_t D) {
  const double bytes = double(N) * double(D + 1) * 12;
  const double visit = bytes > 4 * kCacheBytes ? 20 + 5 * double(D)
                       : bytes > kCacheBytes   ? 20 + 2.2 * double(D)
                                               : 30 + 0.5 * double(D);
  return visit / ((simd_level() == SimdLevel::avx512 ? 0.008 : 0.016) * (double(D) + 0.8));
}

TreeKernels tree_kernels() {
  switch (simd_level()) {
#if OTCUDA_X86_LEVELS
    case SimdLevel::avx512:
      return power_index_avx512();
    case SimdLevel::avx2:
      return power_index_avx2();
#endif
    default:
      return power_index_portable();
  }
}

namespace {

bool tree_query(const TreeView<float>& tree, TreeQuery<float>* q) {
  return tree_kernels().f32(tree, q);
}
bool tree_query(const TreeView<double>& tree, TreeQuery<double>* q) {
  return tree_kernels().f64(tree, q);
}
void tree_queries(const TreeView<float>& tree, const TreeQueue<TreeQuery<float>>& queue) {
  tree_kernels().many_f32(tree, queue);
}
void tree_queries(const TreeView<double>& tree, const TreeQueue<TreeQuery<double>>& queue) {
  tree_kernels().many_f64(tree, queue);
}

// Sums of squares up to here neither overflow in T nor lose what the slack covers.
template <class T>
constexpr double kMostSquare = sizeof(T) == 4 ? 1e30 : 1e290;

template <class T>
double square(const T* a, int64_t D) {
  double sum = 0;
  for (int64_t d = 0; d < D; ++d) sum += double(a[d]) * double(a[d]);
  return sum;
}

template <class T>
T rounded_up(double a) {
  const T t = static_cast<T>(a);
  return double(t) < a ? std::nextafter(t, std::numeric_limits<T>::infinity()) : t;
}

// h + |y|^2 / 2, and the target's share of what a bound may be off by.
template <class T>
T raised_weight(T height, double half_square, int64_t D) {
  const double unit = double(std::numeric_limits<T>::epsilon()) / 2, h = double(height);
  const double slack = power_index_slack(D, unit, 2 * half_square + std::fabs(h));
  return rounded_up<T>((h + half_square) + slack);
}

using Visit = std::pair<uint32_t, int32_t>;  // where a sample lies on the curve, and which it is

// Samples along a Morton curve through the first coordinates: the boxes that one has visited are
// warm for the next, and its winner is a good start.
template <class T>
void order_visits(const T* x, int64_t D, Visit* begin, int64_t count) {
  const int axes = static_cast<int>(std::min<int64_t>(D, 4)), used = axes > 3 ? 8 : 10;
  std::array<T, 4> low, scale;
  for (int a = 0; a < axes; ++a) {
    low[a] = std::numeric_limits<T>::infinity();
    T high = -low[a];
    for (int64_t k = 0; k < count; ++k) {
      if (!std::isfinite(x[k * D + a])) continue;
      low[a] = std::min(low[a], x[k * D + a]);
      high = std::max(high, x[k * D + a]);
    }
    scale[a] = high > low[a] ? T(1 << used) / (high - low[a]) : T(0);
  }
  for (int64_t k = 0; k < count; ++k) {
    std::array<uint32_t, 4> cell{};
    for (int a = 0; a < axes; ++a) {
      const T at = (x[k * D + a] - low[a]) * scale[a];
      cell[a] = at >= T(0) ? static_cast<uint32_t>(std::min(at, T((1 << used) - 1))) : 0;  // NaN: 0
    }
    uint32_t key = 0;
    for (int bit = used - 1; bit >= 0; --bit) {
      for (int a = 0; a < axes; ++a) key = key << 1 | (cell[a] >> bit & 1);
    }
    begin[k] = {key, static_cast<int32_t>(k)};
  }
  std::sort(begin, begin + count);
}

}  // namespace

// --- the tree -----------------------------------------------------------------------------------

template <class T>
void BoxTree<T>::build(const T* y, int64_t N, int64_t D, Poll* poll) {
  y_ = y;
  D_ = D;
  order_.resize(static_cast<size_t>(N));
  for (int64_t i = 0; i < N; ++i) order_[i] = static_cast<int32_t>(i);
  root_ = node(0, N, poll);
  Vector<int32_t>().swap(order_);
}

template <class T>
int32_t BoxTree<T>::leaf(int64_t begin, int64_t end) {
  const int64_t id = static_cast<int64_t>(leaf_id_.size()) / kTreeWidth;
  leaf_id_.resize((id + 1) * kTreeWidth, std::numeric_limits<int32_t>::max());
  leaf_h_.resize((id + 1) * kTreeWidth, -std::numeric_limits<T>::infinity());
  leaf_y_.resize((id + 1) * kTreeWidth * D_, T(0));
  for (int64_t k = 0; k < end - begin; ++k) {
    const int64_t i = order_[begin + k];
    leaf_id_[id * kTreeWidth + k] = static_cast<int32_t>(i);
    for (int64_t d = 0; d < D_; ++d) leaf_y_[(id * D_ + d) * kTreeWidth + k] = y_[i * D_ + d];
  }
  return static_cast<int32_t>(~id);
}

// Parts [begin, end) at the median of the widest side; a whole number of leaves to the left.
template <class T>
int64_t BoxTree<T>::split(int64_t begin, int64_t end) {
  int64_t widest = 0;
  T width = -1;
  for (int64_t d = 0; d < D_; ++d) {
    T low = std::numeric_limits<T>::infinity(), high = -low;
    for (int64_t k = begin; k < end; ++k) {
      const T v = y_[order_[k] * D_ + d];
      low = std::min(low, v);
      high = std::max(high, v);
    }
    if (high - low > width) {
      width = high - low;
      widest = d;
    }
  }
  const int64_t half = (end - begin) / 2;
  const int64_t left = std::max<int64_t>(1, (half + kTreeWidth / 2) / kTreeWidth) * kTreeWidth;
  std::nth_element(order_.begin() + begin, order_.begin() + begin + left, order_.begin() + end,
                   [&](int32_t a, int32_t b) { return y_[a * D_ + widest] < y_[b * D_ + widest]; });
  return begin + left;
}

template <class T>
int32_t BoxTree<T>::node(int64_t begin, int64_t end, Poll* poll) {
  if (poll != nullptr) (*poll)(double(begin) / double(order_.size()));
  std::array<std::pair<int64_t, int64_t>, kTreeWidth> part;
  part[0] = {begin, end};
  int parts = 1;
  for (; parts < kTreeWidth; ++parts) {
    const auto largest = std::max_element(
        part.begin(), part.begin() + parts,
        [](const auto& a, const auto& b) { return a.second - a.first < b.second - b.first; });
    if (largest->second - largest->first <= kTreeWidth) break;
    const int64_t middle = split(largest->first, largest->second);
    part[parts] = {middle, largest->second};
    largest->second = middle;
  }
  const int64_t id = static_cast<int64_t>(child_.size()) / kTreeWidth;
  child_.resize((id + 1) * kTreeWidth, kNoChild);
  boxes_.resize((id + 1) * (2 * D_ + 1) * kTreeWidth, T(0));
  T* const box = boxes_.data() + id * (2 * D_ + 1) * kTreeWidth;
  for (int k = 0; k < parts; ++k) {
    for (int64_t d = 0; d < D_; ++d) {
      T low = std::numeric_limits<T>::infinity(), high = -low;
      for (int64_t j = part[k].first; j < part[k].second; ++j) {
        low = std::min(low, y_[order_[j] * D_ + d]);
        high = std::max(high, y_[order_[j] * D_ + d]);
      }
      box[d * kTreeWidth + k] = low;
      box[(D_ + d) * kTreeWidth + k] = high;
    }
  }
  for (int k = 0; k < parts; ++k) {
    const auto [from, to] = part[k];
    const int32_t child = to - from <= kTreeWidth ? leaf(from, to) : node(from, to, poll);
    child_[id * kTreeWidth + k] = child;
  }
  return static_cast<int32_t>(id);
}

// A child has a higher number than its node, so one pass from the end brings the maxima up.
template <class T>
void BoxTree<T>::set_heights(const T* h, const Buffer<double>& half_squares) {
  constexpr T kNone = -std::numeric_limits<T>::infinity();
  for (size_t k = 0; k < leaf_id_.size(); ++k) {
    if (leaf_id_[k] != std::numeric_limits<int32_t>::max()) leaf_h_[k] = h[leaf_id_[k]];
  }
  const int64_t nodes = static_cast<int64_t>(child_.size()) / kTreeWidth;
  const auto most = [&](int64_t node) {
    return boxes_.data() + (node * (2 * D_ + 1) + 2 * D_) * kTreeWidth;
  };
  for (int64_t node = nodes - 1; node >= 0; --node) {
    for (int k = 0; k < kTreeWidth; ++k) {
      const int32_t child = child_[node * kTreeWidth + k];
      T w = kNone;
      if (child >= 0) {
        w = *std::max_element(most(child), most(child) + kTreeWidth);
      } else if (child != kNoChild) {
        for (int64_t j = int64_t(~child) * kTreeWidth; j < (int64_t(~child) + 1) * kTreeWidth;
             ++j) {
          if (leaf_h_[j] > kNone) {
            w = std::max(w, raised_weight(leaf_h_[j], half_squares[leaf_id_[j]], D_));
          }
        }
      }
      most(node)[k] = w;
    }
  }
}

template <class T>
TreeView<T> BoxTree<T>::view() const {
  return {boxes_.data(), child_.data(), leaf_y_.data(), leaf_h_.data(), leaf_id_.data(), root_, D_};
}

// --- the handle ---------------------------------------------------------------------------------

template <class T>
PowerIndex<T>::PowerIndex(const T* y, int64_t N, int64_t D, bool with_tree, Poll* poll)
    : N_(N), D_(D), y_(N * D), h_(N), half_squares_(N) {
  const DefaultFloatMode mode;
  std::copy(y, y + N * D, y_.data());
  for (int64_t i = 0; i < N; ++i) {
    const double s = square(y_.data() + i * D, D);
    half_squares_[i] = s / 2;
    if (!(s <= largest_square_)) largest_square_ = s;  // a NaN stays
    if (std::isnan(largest_square_)) break;
  }
  const bool fits = largest_square_ < kMostSquare<T>;
  if (with_tree && fits && D >= 1 && N >= kLeastTargets && N < (int64_t(1) << 30)) {
    tree_.build(y_.data(), N, D, poll);
  }
}

template <class T>
PowerIndex<T>::~PowerIndex() = default;

template <class T>
void PowerIndex<T>::set_heights(const T* h) {
  const std::unique_lock<std::shared_mutex> lock(mutex_);
  const DefaultFloatMode mode;
  std::copy(h, h + N_, h_.data());
  bool any = false, wild = false;
  largest_height_ = 0;
  for (int64_t i = 0; i < N_; ++i) {
    if (std::isfinite(h[i])) {
      any = true;
      largest_height_ = std::max(largest_height_, std::fabs(double(h[i])));
    }
    wild |= std::isnan(h[i]) || h[i] == std::numeric_limits<T>::infinity();
  }
  heights_fit_ = any && !wild && largest_height_ < kMostSquare<T>;
  if (has_tree() && heights_fit_) tree_.set_heights(h_.data(), half_squares_);
  if constexpr (sizeof(T) == 4) {
    for (const auto& screen : {screen_, halves_}) {
      if (screen != nullptr && !screen->empty() && heights_fit_) screen->set_heights(h_.data());
    }
  }
  verdict_ = 0;
  halves_verdict_ = 0;
  screen_verdict_ = 0;
  topk_verdict_ = 0;
  topk_screen_most_ = kMostTopk;
  heights_set_ = true;
}

// Prepares a query; false where the sample is out of the tree's range.
template <class T>
bool PowerIndex<T>::query(const T* x, TreeQuery<T>* q) const {
  const double xx = square(x, D_);
  if (!(xx < kMostSquare<T>)) return false;
  const double unit = double(std::numeric_limits<T>::epsilon()) / 2;
  q->x = x;
  q->shift = xx / 2 + power_index_slack(D_, unit, xx);
  q->best = -std::numeric_limits<T>::infinity();
  q->index = std::numeric_limits<int32_t>::max();
  q->place = -1;
  return true;
}

// Some samples by the tree, which gives up when it would cost more than the blocked loop, or than
// the screen where that seems to pay.
template <class T>
bool PowerIndex<T>::pays(const T* x, int64_t B, Poll* poll) const {
  const TreeView<T> tree = tree_.view();
  const bool screen = sizeof(T) == 4 && screen_verdict_ >= 0 && power_screen_pays(B, N_, D_, true);
  const double all = double(N_) * (screen ? power_screen_share(D_) : 1.0);
  const int64_t most = std::max<int64_t>(1, int64_t(all / tree_visit_cost(N_, D_)));
  bool finished = true;
  parallel_for(
      1, 1,
      [&](int64_t, int64_t) {
        int64_t left = most * kTrial;
        int32_t hint = -1;
        for (int64_t k = 0; k < kTrial && finished; ++k) {
          TreeQuery<T> q{};
          if (!query(x + k * (B / kTrial) * D_, &q)) continue;
          if (hint >= 0) {
            q.best = power_argmax_score(q.x, y_.data() + hint * D_, h_[hint], D_);
            q.index = hint;
          }
          q.most = left;
          finished = tree_query(tree, &q);
          left -= q.nodes + q.leaves;
          hint = q.index;
          heartbeat();
        }
      },
      poll, 1);
  return finished;
}

template <class T>
void PowerIndex<T>::by_brute(const T* x, int64_t B, T* value, int64_t* index, Poll* poll) const {
  power_argmax_blocked({x, y_.data(), h_.data(), B, N_, D_, value, index}, poll);
}

// The samples that the tree has marked by kOutOfRange: NaN, infinite or enormous ones.
template <class T>
void PowerIndex<T>::out_of_range(const T* x, int64_t B, int64_t count, T* value, int64_t* index,
                                 Poll* poll) const {
  Buffer<T> rows(count * D_), values(count);
  Buffer<int64_t> winners(count);
  for (int64_t b = 0, k = 0; b < B; ++b) {
    if (index[b] == kOutOfRange) std::copy(x + b * D_, x + (b + 1) * D_, &rows[k++ * D_]);
  }
  by_brute(rows.data(), count, values.data(), winners.data(), poll);
  for (int64_t b = 0, k = 0; b < B; ++b) {
    if (index[b] != kOutOfRange) continue;
    value[b] = values[k];
    index[b] = winners[k++];
  }
}

// Some samples along their curve, in kTreeTogether stretches; each starts from the winner of the
// one before, whose leaf is still in the cache: neighbours often share a cell.
template <class T>
class PowerIndex<T>::Walk {
 public:
  Walk(const PowerIndex& index, const T* x, int64_t count, T* value, int64_t* winner)
      : index_(index),
        tree_(index.tree_.view()),
        x_(x),
        value_(value),
        winner_(winner),
        visits_(static_cast<size_t>(count)) {
    order_visits(x, index.D_, visits_.data(), count);
    for (int k = 0; k < kTreeTogether; ++k) {
      at_[k] = count * k / kTreeTogether - 1;
      end_[k] = count * (k + 1) / kTreeTogether;
      place_[k] = -1;
    }
  }

  void run() { tree_queries(tree_, {&Walk::next, this}); }

  int64_t scores = 0, out = 0;

 private:
  static bool next(void* context, int slot, TreeQuery<T>* q) {
    return static_cast<Walk*>(context)->advance(slot, q);
  }

  bool advance(int slot, TreeQuery<T>* q) {
    if (started_[slot]) finish(slot, *q);
    started_[slot] = false;
    while (!started_[slot] && ++at_[slot] < end_[slot]) {
      const int64_t b = visits_[at_[slot]].second;
      *q = {};
      started_[slot] = index_.query(x_ + b * index_.D_, q);
      if (!started_[slot]) winner_[b] = kOutOfRange;
      out += !started_[slot];
    }
    if (started_[slot] && place_[slot] >= 0) start_from(place_[slot], q);
    return started_[slot];
  }

  void finish(int slot, const TreeQuery<T>& q) {
    seen_ += q.nodes + q.leaves;
    if (seen_ > kBeat) heartbeat(), seen_ = 0;
    const int64_t b = visits_[at_[slot]].second;
    scores += q.leaves * kTreeWidth;
    value_[b] = q.best;
    winner_[b] = q.index;
    place_[slot] = q.place;
  }

  void start_from(int64_t place, TreeQuery<T>* q) const {
    const int64_t D = index_.D_, leaf = place / kTreeWidth, lane = place % kTreeWidth;
    T score = 0;
    for (int64_t d = 0; d < D; ++d) {
      score = exact_fma(q->x[d], tree_.leaf_y[(leaf * D + d) * kTreeWidth + lane], score);
    }
    q->best = score + tree_.leaf_h[place];
    q->index = tree_.leaf_id[place];
    q->place = place;
  }

  const PowerIndex& index_;
  const TreeView<T> tree_;
  const T* const x_;
  T* const value_;
  int64_t* const winner_;
  Vector<Visit> visits_;
  int64_t at_[kTreeTogether], end_[kTreeTogether], place_[kTreeTogether];
  bool started_[kTreeTogether] = {};
  int64_t seen_ = 0;  // visits since a heartbeat
};

template <class T>
void PowerIndex<T>::by_tree(const T* x, int64_t B, T* value, int64_t* index, Poll* poll) const {
  std::atomic<int64_t> scores{0}, plain{0};
  const auto rows = [&](int64_t begin, int64_t end) {
    Walk walk(*this, x + begin * D_, end - begin, value + begin, index + begin);
    walk.run();
    scores += walk.scores;
    plain += walk.out;
  };
  const int threads = threads_for(2e3 * double(B));
  const int64_t share = (B + threads - 1) / threads;
  parallel_for(B, std::clamp<int64_t>(threads > 1 ? share / 4 : share, 64, kGrain), rows, poll,
               threads);
  if (plain > 0) out_of_range(x, B, plain, value, index, poll);
  count_backend_path(BackendPath::power_argmax_tree, B - plain);
  count_backend_path(BackendPath::power_argmax_tree_scores, scores);
}

// The screen at these heights, of bytes or what the level has in their place, or of bfloat16; a new
// one where there is none or the level has been changed.
template <class T>
std::shared_ptr<PowerScreen> PowerIndex<T>::screen(const T* x, int64_t B, Poll* poll, bool halves) {
  std::shared_ptr<PowerScreen>& screen = halves ? halves_ : screen_;
  if constexpr (sizeof(T) == 4) {
    const std::lock_guard<std::mutex> lock(screen_mutex_);
    if (screen == nullptr || (!screen->empty() && !screen->of_level_in_force())) {
      const ScreenKernels level = halves ? power_screen_halves() : power_screen_kernels();
      auto made = std::make_shared<PowerScreen>();
      if (made->build(level, y_.data(), N_, D_, x, B, poll)) made->set_heights(h_.data());
      screen = std::move(made);
    }
    return screen;
  } else {
    return nullptr;
  }
}

// Samples that bytes left over: by bfloat16 where they have given up and it bites, else in blocks.
template <class T>
void PowerIndex<T>::by_halves(const ArgmaxProblem<float>& p, bool gave_up, Poll* poll) {
  if constexpr (sizeof(T) == 4) {
    if (gave_up && halves_verdict_ >= 0 && simd_bf16_too() &&
        power_screen_pays(p.B, N_, D_, true)) {
      const std::shared_ptr<PowerScreen> screen = this->screen(p.x, p.B, poll, true);
      const ScreenTrust trust = halves_verdict_ == 0 ? ScreenTrust::trial : ScreenTrust::usual;
      halves_verdict_ = power_argmax_screened(*screen, p, trust, poll) ? 1 : -1;
      return;
    }
    count_backend_path(BackendPath::power_argmax_screen_fallbacks, p.B);
    power_argmax_blocked(p, poll);
  }
}

// True where a screen has answered. Forced: also where it does not seem to pay.
template <class T>
bool PowerIndex<T>::screened(const T* x, int64_t B, T* value, int64_t* index, bool forced,
                             Poll* poll) {
  if constexpr (sizeof(T) == 4) {
    if (!heights_fit_ || (!forced && !power_screen_pays(B, N_, D_, true))) return false;
    const ArgmaxProblem<float> problem{x, y_.data(), h_.data(), B, N_, D_, value, index};
    if (!forced && screen_verdict_ < 0) {
      if (halves_verdict_ < 0 || !simd_bf16_too()) return false;
      by_halves(problem, true, poll);
      return true;
    }
    const std::shared_ptr<PowerScreen> screen = this->screen(x, B, poll);
    if (screen->empty()) return false;
    const ScreenTrust trust = forced                 ? ScreenTrust::forced
                              : screen_verdict_ == 0 ? ScreenTrust::trial
                                                     : ScreenTrust::usual;
    const auto rest = [&](const ArgmaxProblem<float>& left, bool gave_up) {
      by_halves(left, gave_up && !forced, poll);
    };
    const bool bites = power_argmax_screened(*screen, problem, trust, poll, rest);
    if (!forced) screen_verdict_ = bites ? 1 : -1;
    return true;
  } else {
    return false;
  }
}

template <class T>
int64_t PowerIndex<T>::screen_violations(const T* x, int64_t B, double factor, Poll* poll) {
  const std::shared_lock<std::shared_mutex> lock(mutex_);
  if constexpr (sizeof(T) == 4) {
    Buffer<T> value(B);
    Buffer<int64_t> index(B);
    if (B > 0 && screened(x, B, value.data(), index.data(), true, poll)) {
      return screen(x, B, poll)->violations(x, B, factor);
    }
  }
  return -1;
}

template <class T>
void PowerIndex<T>::argmax(const T* x, int64_t B, T* value, int64_t* index, IndexMethod method,
                           Poll* poll) {
  const std::shared_lock<std::shared_mutex> lock(mutex_);
  OTCUDA_CHECK(heights_set_, "the index has no heights yet; call set_heights(h) first");
  OTCUDA_CHECK(method != IndexMethod::tree || has_tree(),
               "method is 'tree', but the index has none: it holds fewer than " +
                   std::to_string(kLeastTargets) + " targets, or some out of range");
  if (B == 0) return;
  const bool automatic = method == IndexMethod::automatic;
  bool tree = has_tree() && heights_fit_ && (automatic || method == IndexMethod::tree);
  if (tree && automatic) {
    if (verdict_ == 0 && B >= kTrialBatch) verdict_ = pays(x, B, poll) ? 1 : -1;
    tree = verdict_ > 0;
  }
  if (tree) return by_tree(x, B, value, index, poll);
  const bool forced = method == IndexMethod::screen;
  if ((automatic || forced) && screened(x, B, value, index, forced, poll)) return;
  by_brute(x, B, value, index, poll);
}

template class BoxTree<float>;
template class BoxTree<double>;
template class PowerIndex<float>;
template class PowerIndex<double>;

}  // namespace otcuda::cpu
