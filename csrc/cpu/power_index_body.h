// SPDX-License-Identifier: Apache-2.0
// A query of the box tree, once for all instruction sets: loops of 16 that the compiler turns into
// vectors, and of Lanes
//   at_least(a, b)                bit k is set where a[k] >= b
//   scores(x, y, h, D, score)     the contract's of 16 targets, y [D][16]
// Internal linkage, as in power_argmax_body.h.
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

// The contract's scores of the targets of a leaf; bit k of what is returned: it may be the best.
template <class Lanes, class T>
inline uint32_t leaf_scores(const TreeView<T>& tree, int64_t leaf, const TreeQuery<T>& q,
                            T (&score)[kTreeWidth]) {
  Lanes::scores(q.x, tree.leaf_y + leaf * tree.D * kTreeWidth, tree.leaf_h + leaf * kTreeWidth,
                tree.D, score);
  return Lanes::at_least(score, q.best);
}

// True when a target of the leaf is the best now.
template <class Lanes, class T>
inline bool visit_leaf(const TreeView<T>& tree, int64_t leaf, TreeQuery<T>* q) {
  T score[kTreeWidth];
  const int32_t* const id = tree.leaf_id + leaf * kTreeWidth;
  bool better = false;
  for (uint32_t mask = leaf_scores<Lanes>(tree, leaf, *q, score); mask != 0; mask &= mask - 1) {
    const int k = __builtin_ctz(mask);  // targets lie in no order: the index decides a tie
    if (score[k] > q->best || (score[k] == q->best && id[k] < q->index)) {
      q->best = score[k];
      q->index = id[k];
      q->place = leaf * kTreeWidth + k;
      better = true;
    }
  }
  return better;
}

// True when a target of the leaf has entered the list.
template <class Lanes, class T>
inline bool visit_leaf(const TreeView<T>& tree, int64_t leaf, TreeTopk<T>* q) {
  T score[kTreeWidth];
  const int32_t* const id = tree.leaf_id + leaf * kTreeWidth;
  bool better = false;
  for (uint32_t mask = leaf_scores<Lanes>(tree, leaf, *q, score); mask != 0; mask &= mask - 1) {
    const int k = __builtin_ctz(mask);
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

constexpr int kTreeStack = kTreeWidth * 16;

// Where a query stands: boxes not yet visited, the most promising last.
template <class T>
struct TreeSearch {
  struct Entry {
    int32_t child;
    T bound;
  };
  Entry stack[kTreeStack];
  int top = 0;
  T least = 0;
};

template <class T, class Query>
inline void tree_start(const TreeView<T>& tree, const Query& q, TreeSearch<T>* s) {
  s->stack[0] = {tree.root, static_cast<T>(__builtin_inf())};
  s->top = 1;
  s->least = threshold<T>(q);
}

// Inlined by force: g++ takes a function that only asks for lines for one without any effect.
inline __attribute__((always_inline)) void prefetch_lines(const void* from, int64_t bytes) {
  const char* const at = static_cast<const char*>(from);
#pragma GCC unroll 1
  for (int64_t k = 0; k < bytes && k < kTreeAhead; k += 64) __builtin_prefetch(at + k);
}

template <class T>
inline __attribute__((always_inline)) void prefetch_child(const TreeView<T>& tree, int32_t child) {
  constexpr int64_t kBytes = kTreeWidth * sizeof(T);
  if (child < 0) {
    const int64_t leaf = ~child;
    prefetch_lines(tree.leaf_y + leaf * tree.D * kTreeWidth, tree.D * kBytes);
    prefetch_lines(tree.leaf_h + leaf * kTreeWidth, kBytes);
    __builtin_prefetch(tree.leaf_id + leaf * kTreeWidth);
  } else {
    const int64_t sides = 2 * tree.D + 1;
    prefetch_lines(tree.boxes + child * sides * kTreeWidth, sides * kBytes);
    __builtin_prefetch(tree.child + int64_t(child) * kTreeWidth);
  }
}

// Visits the most promising box, depth first; false when none is left that could hold a winner.
template <class Lanes, class T, class Query>
inline bool tree_step(const TreeView<T>& tree, Query* q, TreeSearch<T>* s) {
  const auto entry = s->stack[--s->top];
  if (entry.child < 0) {
    ++q->leaves;
    if (visit_leaf<Lanes>(tree, ~entry.child, q)) s->least = threshold<T>(*q);
  } else {
    ++q->nodes;
    T bound[kTreeWidth];
    bounds(tree.boxes + entry.child * (2 * tree.D + 1) * kTreeWidth, q->x, tree.D, bound);
    const int32_t* const child = tree.child + int64_t(entry.child) * kTreeWidth;
    const int base = s->top;
    for (uint32_t mask = Lanes::at_least(bound, s->least); mask != 0; mask &= mask - 1) {
      const int k = __builtin_ctz(mask);
      if (child[k] == kNoChild) continue;
      int at = s->top++;
      for (; at > base && s->stack[at - 1].bound > bound[k]; --at) {
        s->stack[at] = s->stack[at - 1];
      }
      s->stack[at] = {child[k], bound[k]};
    }
  }
  while (s->top > 0 && s->stack[s->top - 1].bound < s->least) --s->top;
  return s->top > 0;
}

template <class Lanes, class T, class Query>
bool tree_search(const TreeView<T>& tree, Query* q) {
  TreeSearch<T> search;
  tree_start(tree, *q, &search);
  int64_t left = q->most;
  do {
    if (--left < 0) return false;
  } while (tree_step<Lanes>(tree, q, &search));
  return true;
}

// Several queries in turn: while memory brings what one visits next, the others visit theirs.
template <class Lanes, class T, class Query>
void tree_search_many(const TreeView<T>& tree, const TreeQueue<Query>& queue) {
  TreeSearch<T> search[kTreeTogether];
  Query query[kTreeTogether];
  int slot[kTreeTogether], count = 0;
  for (int k = 0; k < kTreeTogether; ++k) {
    if (!queue.next(queue.context, k, &query[k])) continue;
    tree_start(tree, query[k], &search[k]);
    slot[count++] = k;
  }
  for (int at = 0; count > 0; at = at + 1 < count ? at + 1 : 0) {
    const int k = slot[at];
    if (tree_step<Lanes>(tree, &query[k], &search[k])) {
      prefetch_child(tree, search[k].stack[search[k].top - 1].child);
    } else if (queue.next(queue.context, k, &query[k])) {
      tree_start(tree, query[k], &search[k]);
    } else {
      slot[at] = slot[--count];
    }
  }
}

template <class Lanes>
TreeKernels kernels_of_tree() {
  return {&tree_search<Lanes, float, TreeQuery<float>>,
          &tree_search<Lanes, double, TreeQuery<double>>,
          &tree_search<Lanes, float, TreeTopk<float>>,
          &tree_search<Lanes, double, TreeTopk<double>>,
          &tree_search_many<Lanes, float, TreeQuery<float>>,
          &tree_search_many<Lanes, double, TreeQuery<double>>,
          &tree_search_many<Lanes, float, TreeTopk<float>>,
          &tree_search_many<Lanes, double, TreeTopk<double>>};
}

}  // namespace
}  // namespace otcuda::cpu
