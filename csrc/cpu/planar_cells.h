// SPDX-License-Identifier: Apache-2.0
// The cells of a power diagram in the plane, as convex polygons, with their masses and edges.
//
// A cell begins as the whole domain. It is cut by the neighbours it had last time; then each of its
// corners asks a tree of all targets who is best there. Nobody better: the corner stays. Else the
// cell is cut by that one. Cells are made one by one, and no cell relies on what another found.
#pragma once

#include <cstdint>

#include "common/alloc.h"
#include "common/poll.h"
#include "common/source_samples.h"

namespace otcuda::cpu {

struct Point {
  double x, y;
};

struct Corner {
  Point at;
  int32_t beyond;  // the cell behind the edge from here to the next corner; negative: the border
  bool sure;       // nobody is better here
};

// An edge of a cell, as a row of H sees it.
struct Edge {
  int32_t beyond;
  double weight;
};

// Who is best at a point: a tree of boxes over the targets. With x0 a point near the cells of a
// box, no target of it scores more at x than max_j <x0, y_j> + h_j, plus max <x - x0, y> over the
// box: first-order in |x - x0| times the size of the box, so nearly all boxes are left out.
class PlanarTree {
 public:
  PlanarTree(const float* y, int64_t N);

  // Targets in the order of the leaves, and the place of each of ours in that of the caller.
  const Buffer<Point>& targets() const { return y_; }
  const Buffer<int32_t>& order() const { return order_; }

  // New heights, and a point near each cell, both in the order of the leaves.
  void set(const double* h, const Point* near);

  // The best target at x if it scores more than `least`, else -1. `stack` is working space.
  int32_t best(Point x, double least, Vector<int32_t>* stack) const;

 private:
  struct Node {
    int32_t begin, end;  // targets
    int32_t right;       // child, the left one is the next node; 0: a leaf
    Point low, high;     // of the targets
    Point reference;
    double value;  // best score at the reference
  };
  int32_t grow(int32_t begin, int32_t end, const float* y);
  void refresh(int32_t node, const double* h, const Point* near);
  double bound(const Node& node, Point x) const;

  Buffer<Point> y_;
  Buffer<int32_t> order_;
  Vector<Node> nodes_;
  const double* h_ = nullptr;
};

// All arrays are in the order of the tree's leaves.
class PlanarCells {
 public:
  PlanarCells(const float* y, int64_t N, SourceKind source);

  int64_t size() const { return N_; }
  const Buffer<int32_t>& order() const { return tree_.order(); }

  // The diagram at heights h.
  void build(const double* h, Poll* poll);

  double mass(int64_t i) const { return mass_[i]; }
  // Calls visit(edge) for the edges of cell i.
  template <class Visit>
  void edges(int64_t i, const Visit& visit) const {
    const Vector<Edge>& all = edges_[i / kBlock];
    for (int32_t k = first_[i]; k < last_[i]; ++k) visit(all[size_t(k)]);
  }

  static constexpr int64_t kBlock = 256;  // cells that are made together

 private:
  struct Scratch {
    Vector<Corner> polygon, cut;
    Vector<double> side;
    Vector<int32_t> tried, stack;
  };
  void guess(const double* h);
  void make(int64_t i, const Vector<Edge>& before, Scratch* scratch, Vector<Edge>* edges);
  void cut(int64_t i, int32_t j, Scratch* scratch) const;
  void find(int64_t i, Scratch* scratch) const;
  void measure(int64_t i, const Scratch& scratch, Vector<Edge>* edges);

  const int64_t N_;
  const SourceKind source_;
  PlanarTree tree_;
  const Buffer<Point>& y_;
  Buffer<double> mass_;
  Buffer<Point> near_;
  Buffer<int32_t> first_, last_;
  Vector<Vector<Edge>> edges_;
  const double* h_ = nullptr;
};

}  // namespace otcuda::cpu
