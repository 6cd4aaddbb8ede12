// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>

#include "common/alloc.h"
#include "common/poll.h"
#include "common/power_topk.h"
#include "cpu/power_index_kernel.h"

namespace otcuda::cpu {

class PowerScreen;
template <class T>
struct ArgmaxProblem;

TreeKernels tree_kernels();  // of the level in force

// What a visit costs, in targets of the blocked loop: sorting and misses, then 16 boxes or chains.
double tree_visit_cost(int64_t N, int64_t D);

enum class IndexMethod : int { automatic, brute, tree, screen };

// 16-ary boxes over targets: median splits of the widest side, leaves of 16.
template <class T>
class BoxTree {
 public:
  void build(const T* y, int64_t N, int64_t D, Poll* poll);
  void set_heights(const T* h, const Buffer<double>& half_squares);
  bool empty() const { return child_.empty(); }
  TreeView<T> view() const;

 private:
  int32_t leaf(int64_t begin, int64_t end);
  int32_t node(int64_t begin, int64_t end, Poll* poll);
  int64_t split(int64_t begin, int64_t end);

  const T* y_ = nullptr;
  int64_t D_ = 0;
  int32_t root_ = 0;
  Vector<int32_t> order_, child_, leaf_id_;
  Vector<T> boxes_, leaf_y_, leaf_h_;
};

// Contract: csrc/common/power_index.h. Calls from several threads are safe: set_heights waits for
// the calls of argmax that run, and they for it.
template <class T>
class PowerIndex {
 public:
  PowerIndex(const T* y, int64_t N, int64_t D, bool with_tree, Poll* poll);
  ~PowerIndex();

  void set_heights(const T* h);  // [N]
  // x [B, D] -> value, index [B]; ArgumentError where no heights are set or there is no tree.
  void argmax(const T* x, int64_t B, T* value, int64_t* index, IndexMethod method, Poll* poll);

  // x [B, D] -> value, index [B, k] by the contract of common/power_topk.h.
  void topk(const T* x, int64_t B, int k, T* value, int64_t* index, IndexMethod method, Poll* poll);
  // The best and its gap, [B] each: the contract of power_argmax's return_gap.
  void argmax_gap(const T* x, int64_t B, T* value, int64_t* index, T* gap, IndexMethod method,
                  Poll* poll);
  // Targets index [M] -> out [M, D]; zeros for -1.
  void targets(const int64_t* index, int64_t M, T* out) const;

  int64_t N() const { return N_; }
  int64_t D() const { return D_; }
  bool has_tree() const { return !tree_.empty(); }
  int64_t screen_violations(const T* x, int64_t B, double factor, Poll* poll);  // -1: no screen

 private:
  bool pays(const T* x, int64_t B, Poll* poll) const;
  void by_tree(const T* x, int64_t B, T* value, int64_t* index, Poll* poll) const;
  std::shared_ptr<PowerScreen> screen(const T* x, int64_t B, Poll* poll, bool halves = false);
  void by_halves(const ArgmaxProblem<float>& problem, bool gave_up, Poll* poll);
  bool topk_takes_tree(const T* x, int64_t B, int k, IndexMethod method, Poll* poll);
  bool topk_pays(const T* x, int64_t B, int k, Poll* poll);
  bool topk_query(const T* x, int k, TreeTopk<T>* q) const;
  void topk_by_tree(const T* x, int64_t B, int k, T* value, int64_t* index, Poll* poll) const;
  bool topk_screened(const T* x, int64_t B, int k, T* value, int64_t* index, bool forced,
                     Poll* poll);
  bool screened(const T* x, int64_t B, T* value, int64_t* index, bool forced, Poll* poll);
  void by_brute(const T* x, int64_t B, T* value, int64_t* index, Poll* poll) const;
  void out_of_range(const T* x, int64_t B, int64_t count, T* value, int64_t* index,
                    Poll* poll) const;
  class Walk;
  class TopkWalk;
  bool query(const T* x, TreeQuery<T>* q) const;

  const int64_t N_, D_;
  Buffer<T> y_, h_;
  Buffer<double> half_squares_;  // |y_i|^2 / 2
  double largest_square_ = 0, largest_height_ = 0;
  bool heights_set_ = false, heights_fit_ = false;
  BoxTree<T> tree_;
  std::shared_ptr<PowerScreen> screen_;  // built by the first argmax that it may serve
  std::shared_ptr<PowerScreen> halves_;  // and by the first on which that one gives up
  std::mutex screen_mutex_;
  std::atomic<int> halves_verdict_{0};  // as screen_verdict_
  std::atomic<int> screen_verdict_{0};  // 0 none, 1 it bites, -1 it does not, at these heights
  std::atomic<int> topk_screen_most_{kMostTopk};  // k up to which the screen has not given up
  std::atomic<int> topk_verdict_{0};  // of the trial at these heights: 0 none, 2 k + (1: it pays)
  mutable std::shared_mutex mutex_;
  mutable std::atomic<int> verdict_{0};  // of the trial at these heights: 0 none, 1 tree, -1 brute
};

extern template class PowerIndex<float>;
extern template class PowerIndex<double>;

}  // namespace otcuda::cpu
