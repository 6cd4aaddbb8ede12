// SPDX-License-Identifier: Apache-2.0
// A query of the box tree, once for all instruction sets: loops of 16 that the compiler turns into
// vectors, and of Lanes at_least(a, b): bit k is set where a[k] >= b. Internal linkage, as in
// power_argmax_body.h.
#pragma once

#include "common/power_argmax.h"
#include "common/power_index.h"
#include "cpu/power_index_kernel.h"

namespace otcuda::cpu {
namespace {

template <class T>
struct TreeLimits;
template <>
struct TreeLimits<float> {
  static constexpr float kUlps = 4.8e-7f, kTiny = 1e-37f;
};
template <>
struct TreeLimits<double> {
  static constexpr double kUlps = 9e-16, kTiny = 1e-307;
};

// Boxes below this cannot hold a winner: best - shift, rounded down.
template <class T>
inline T threshold(const TreeQuery<T>& q) {
  const T t = static_cast<T>(double(q.best) - q.shift);
  return t - (t < T(0) ? -t : t) * TreeLimits<T>::kUlps - TreeLimits<T>::kTiny;
}

// The most that a target of each child may score, less |x|^2 / 2.
template <class T>
inline void bounds(const T* box, const T* x, int64_t D, T* bound) {
  T square[kTreeWidth] = {};
  for (int64_t d = 0; d < D; ++d) {
    const T *const low = box + d * kTreeWidth, *const high = box + (D + d) * kTreeWidth;
    for (int k = 0; k < kTreeWidth; ++k) {
      const T under = low[k] - x[d], over = x[d] - high[k];
      const T farther = under > over ? under : over;
      const T gap = farther > T(0) ? farther : T(0);
      square[k] += gap * gap;
    }
  }
  const T* const w = box + 2 * D * kTreeWidth;
  for (int k = 0; k < kTreeWidth; ++k) bound[k] = w[k] - T(0.5) * square[k];
}

// The chain of the contract for the targets of a leaf; the largest of their scores.
template <class T>
inline T leaf_scores(const TreeView<T>& tree, int64_t leaf, const T* sample,
                     T (&score)[kTreeWidth]) {
  const T* const y = tree.leaf_y + leaf * tree.D * kTreeWidth;
  for (int k = 0; k < kTreeWidth; ++k) score[k] = T(0);
  for (int64_t d = 0; d < tree.D; ++d) {
    const T x = sample[d];
    for (int k = 0; k < kTreeWidth; ++k) {
      score[k] = exact_fma(x, y[d * kTreeWidth + k], score[k]);
    }
  }
  const T* const h = tree.leaf_h + leaf * kTreeWidth;
  for (int k = 0; k < kTreeWidth; ++k) score[k] += h[k];
  T highest[kTreeWidth / 2];
  for (int k = 0; k < 8; ++k) highest[k] = score[k] > score[k + 8] ? score[k] : score[k + 8];
  for (int k = 0; k < 4; ++k) {
    highest[k] = highest[k] > highest[k + 4] ? highest[k] : highest[k + 4];
  }
  const T a = highest[0] > highest[2] ? highest[0] : highest[2];
  const T b = highest[1] > highest[3] ? highest[1] : highest[3];
  return a > b ? a : b;
}

// True when a target of the leaf is the best now.
template <class T>
inline bool visit_leaf(const TreeView<T>& tree, int64_t leaf, TreeQuery<T>* q) {
  T score[kTreeWidth];
  if (leaf_scores(tree, leaf, q->x, score) < q->best) return false;
  const int32_t* const id = tree.leaf_id + leaf * kTreeWidth;
  bool better = false;
  for (int k = 0; k < kTreeWidth; ++k) {  // targets lie in no order: the index decides a tie
    if (score[k] > q->best || (score[k] == q->best && id[k] < q->index)) {
      q->best = score[k];
      q->index = id[k];
      better = true;
    }
  }
  return better;
}

// True when a target of the leaf has entered the list.
template <class T>
inline bool visit_leaf(const TreeView<T>& tree, int64_t leaf, TreeTopk<T>* q) {
  T score[kTreeWidth];
  if (leaf_scores(tree, leaf, q->x, score) < q->best) return false;
  const int32_t* const id = tree.leaf_id + leaf * kTreeWidth;
  bool better = false;
  for (int k = 0; k < kTreeWidth; ++k) {
    const T s = score[k];
    if (!(s > q->best || (s == q->best && id[k] < q->index)) || s == T(-__builtin_inf())) continue;
    int at = q->k - 1;
    for (; at > 0 && (s > q->score[at - 1] || (s == q->score[at - 1] && id[k] < q->place[at - 1]));
         --at) {
      q->score[at] = q->score[at - 1];
      q->place[at] = q->place[at - 1];
    }
    q->score[at] = s;
    q->place[at] = id[k];
    q->best = q->score[q->k - 1];
    q->index = q->place[q->k - 1];
    better = true;
  }
  return better;
}

// Depth first, the most promising child next.
template <class Lanes, class T, class Query>
bool tree_search(const TreeView<T>& tree, Query* q) {
  struct Entry {
    int32_t child;
    T bound;
  };
  Entry stack[kTreeWidth * 16];
  int top = 0;
  stack[top++] = {tree.root, static_cast<T>(__builtin_inf())};
  T least = threshold<T>(*q);
  int64_t left = q->most;
  while (top > 0) {
    const Entry entry = stack[--top];
    if (entry.bound < least) continue;
    if (--left < 0) return false;
    if (entry.child < 0) {
      ++q->leaves;
      if (visit_leaf(tree, ~entry.child, q)) least = threshold<T>(*q);
      continue;
    }
    ++q->nodes;
    T bound[kTreeWidth];
    bounds(tree.boxes + entry.child * (2 * tree.D + 1) * kTreeWidth, q->x, tree.D, bound);
    const int32_t* const child = tree.child + int64_t(entry.child) * kTreeWidth;
    const int base = top;
    for (uint32_t mask = Lanes::at_least(bound, least); mask != 0; mask &= mask - 1) {
      const int k = __builtin_ctz(mask);
      if (child[k] == kNoChild) continue;
      int at = top++;
      for (; at > base && stack[at - 1].bound > bound[k]; --at) stack[at] = stack[at - 1];
      stack[at] = {child[k], bound[k]};
    }
  }
  return true;
}

template <class Lanes>
TreeKernels kernels_of_tree() {
  return {
      &tree_search<Lanes, float, TreeQuery<float>>, &tree_search<Lanes, double, TreeQuery<double>>,
      &tree_search<Lanes, float, TreeTopk<float>>, &tree_search<Lanes, double, TreeTopk<double>>};
}

}  // namespace
}  // namespace otcuda::cpu
