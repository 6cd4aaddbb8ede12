// SPDX-License-Identifier: Apache-2.0
// Direct solution of a planar Laplacian: H u = r, where rows of H sum to 0.
//
// Unknowns are eliminated by nested dissection (George 1973): halves of the plane first, then those
// that join them. So the factor of N unknowns has about N log N entries, whatever the weights are,
// where conjugate gradients take the more turns the more uneven these are. One unknown of each
// connected part stays 0.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/alloc.h"
#include "common/poll.h"

namespace otcuda::cpu {

class GraphCholesky {
 public:
  explicit GraphCholesky(int64_t N);

  // The graph: edges_of(i, visit) calls visit(j, weight) for edges of i, and H_ij = H_ji = -weight,
  // added up where both ends name their edge. Numbers near each other are to lie near each other in
  // the plane, the halves of any range of them on two sides.
  template <class EdgesOf>
  void connect(const EdgesOf& edges_of) {
    begin_.fill(0);
    for (int32_t i = 0; i < N_; ++i) {
      edges_of(i, [&](int32_t j, double) {
        ++begin_[i + 1];
        ++begin_[j + 1];
      });
    }
    for (int32_t i = 0; i < N_; ++i) begin_[i + 1] += begin_[i];
    renew(begin_[N_], &beyond_, &weight_);
    Buffer<int64_t> filled(N_);
    std::copy(begin_.begin(), begin_.end() - 1, filled.begin());
    for (int32_t i = 0; i < N_; ++i) {
      edges_of(i, [&](int32_t j, double weight) {
        beyond_[filled[i]] = j;
        weight_[filled[i]++] = weight;
        beyond_[filled[j]] = i;
        weight_[filled[j]++] = weight;
      });
    }
    merge(&filled);
  }

  // Factors H. `poll` hears of it every few rows.
  void factor(Poll* poll);

  // right [N] in, u [N] out.
  void solve(Buffer<double>* values);

  int64_t entries() const { return row_.size(); }  // of the factor, without its diagonal

 private:
  static void renew(int64_t size, Buffer<int32_t>* numbers, Buffer<double>* values);
  void merge(Buffer<int64_t>* place);
  void dissect(int32_t begin, int32_t end, Vector<int32_t>* order);
  bool meets(int32_t i, int32_t begin, int32_t end) const;
  int32_t reach(int32_t k, int32_t* stack);
  void plan();

  const int32_t N_;
  // Neighbours of i and weights: begin_[i] .. begin_[i + 1]; the sum of the weights of i.
  Buffer<int64_t> begin_;
  Buffer<int32_t> beyond_;
  Buffer<double> weight_, sum_;
  // order_[k] is eliminated k-th, place_ is its inverse; -1 while it waits.
  Vector<int32_t> order_;
  Buffer<int32_t> place_, parent_, mark_;
  // H = L D L': column k of L below the diagonal is column_[k] .. column_[k + 1].
  Buffer<int64_t> column_;
  Buffer<int32_t> row_;
  Buffer<double> entry_, pivot_, work_;
};

}  // namespace otcuda::cpu
