// SPDX-License-Identifier: Apache-2.0
// What the levels of power_index offer to power_index.cpp. No standard header: ISA files include
// this.
#pragma once

#include <stdint.h>

namespace otcuda::cpu {

template <class T>
struct TreeView {
  const T* boxes;          // [nodes][2 D + 1][16]: low and high sides, then the most of w
  const int32_t* child;    // [nodes][16]
  const T* leaf_y;         // [leaves][D][16]
  const T* leaf_h;         // [leaves][16]; -inf where there is no target
  const int32_t* leaf_id;  // [leaves][16]; INT32_MAX where there is none
  int32_t root;
  int64_t D;
};

template <class T>
struct TreeQuery {
  const T* x;             // [D], finite
  double shift;           // |x|^2 / 2 and the slack: what a box's bound lacks to be that of a score
  T best;                 // -inf, or the score of
  int32_t index;          // this target; INT32_MAX
  int64_t place;          // where in the leaves it was found, if it was
  int64_t nodes, leaves;  // visited so far, counted on
  int64_t most;           // leaves and nodes after which to give up
};

// The k best instead of the best: `best` and `index` of the query are then the last of the list.
template <class T>
struct TreeTopk : TreeQuery<T> {
  T* score;        // [k], best first; -inf where there is none yet
  int32_t* place;  // [k]; INT32_MAX
  int k;
};

constexpr int kTreeTogether = 8;      // queries that are searched in turn
constexpr int64_t kTreeAhead = 1024;  // bytes of a box that are asked for before it is visited

// Queries one after the other in each of kTreeTogether slots: `next` takes over the one that is
// done (the first time there is none) and puts the next in its place; false: the slot stays empty.
template <class Query>
struct TreeQueue {
  bool (*next)(void* context, int slot, Query* query);
  void* context;
};

struct TreeKernels {
  bool (*f32)(const TreeView<float>&, TreeQuery<float>*);  // false: given up
  bool (*f64)(const TreeView<double>&, TreeQuery<double>*);
  bool (*topk_f32)(const TreeView<float>&, TreeTopk<float>*);
  bool (*topk_f64)(const TreeView<double>&, TreeTopk<double>*);
  // Whatever visits they take.
  void (*many_f32)(const TreeView<float>&, const TreeQueue<TreeQuery<float>>&);
  void (*many_f64)(const TreeView<double>&, const TreeQueue<TreeQuery<double>>&);
  void (*many_topk_f32)(const TreeView<float>&, const TreeQueue<TreeTopk<float>>&);
  void (*many_topk_f64)(const TreeView<double>&, const TreeQueue<TreeTopk<double>>&);
};

TreeKernels power_index_portable();
TreeKernels power_index_avx2();
TreeKernels power_index_avx512();

}  // namespace otcuda::cpu
