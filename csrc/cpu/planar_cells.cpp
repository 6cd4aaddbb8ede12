// SPDX-License-Identifier: Apache-2.0
#include "cpu/planar_cells.h"

#include <algorithm>
#include <cmath>

#include "common/threads.h"

namespace otcuda::cpu {
namespace {

constexpr int32_t kLeaf = 8;         // targets
constexpr double kFar = 9.0;         // where the normal law is cut off
constexpr double kRounding = 2e-15;  // of a score, for its size
constexpr double kPi = 3.14159265358979323846;
constexpr double kShort = 0.125;  // an edge on which four points integrate to rounding
constexpr double kFour[2][2] = {{0.3399810435848563, 0.6521451548625461},
                                {0.8611363115940526, 0.3478548451374538}};
constexpr double kEight[4][2] = {{0.1834346424956498, 0.3626837833783620},
                                 {0.5255324099163290, 0.3137066458778873},
                                 {0.7966664774136267, 0.2223810344533745},
                                 {0.9602898564975363, 0.1012285362903763}};

inline double dot(Point a, Point b) { return a.x * b.x + a.y * b.y; }
inline Point minus(Point a, Point b) { return {a.x - b.x, a.y - b.y}; }

// Of the normal law along an edge at the distance d from the origin: the integrals over t of the
// density, and of that of the mass between the edge and the origin, over d.
struct Along {
  double density = 0.0, wedge = 0.0;
};

inline void add_node(double d2, double t, double weight, Along* sum) {
  const double s = 0.5 * (d2 + t * t);
  sum->density += weight * std::exp(-s);
  sum->wedge += weight * (s > 1e-8 ? -std::expm1(-s) / s : 1.0 - 0.5 * s);
}

template <int kNodes>
inline void add_nodes(double d2, double middle, double half, const double (&rule)[kNodes][2],
                      Along* sum) {
  for (const auto& node : rule) {
    add_node(d2, middle - half * node[0], half * node[1], sum);
    add_node(d2, middle + half * node[0], half * node[1], sum);
  }
}

// Both integrands are entire in t and fall within a unit: Gauss's rules reach rounding.
Along along(double d, double from, double to) {
  Along sum;
  const double length = to - from;
  if (length < kShort) {
    add_nodes(d * d, 0.5 * (from + to), 0.5 * length, kFour, &sum);
  } else {
    const int pieces = int(std::ceil(length));
    const double half = 0.5 * length / pieces;
    for (int k = 0; k < pieces; ++k) {
      add_nodes(d * d, from + (2 * k + 1) * half, half, kEight, &sum);
    }
  }
  sum.density /= 2 * kPi;
  sum.wedge *= d / (4 * kPi);
  return sum;
}

}  // namespace

// --- the tree ------------------------------------------------------------------------------------

PlanarTree::PlanarTree(const float* y, int64_t N) : y_(N), order_(N) {
  for (int64_t i = 0; i < N; ++i) order_[i] = int32_t(i);
  grow(0, int32_t(N), y);
  for (int64_t i = 0; i < N; ++i) {
    y_[i] = {double(y[2 * order_[i]]), double(y[2 * order_[i] + 1])};
  }
}

int32_t PlanarTree::grow(int32_t begin, int32_t end, const float* y) {
  const int32_t at = int32_t(nodes_.size());
  Node node{begin, end, 0, {INFINITY, INFINITY}, {-INFINITY, -INFINITY}, {0, 0}, 0};
  for (int32_t k = begin; k < end; ++k) {
    const double a = double(y[2 * order_[k]]), b = double(y[2 * order_[k] + 1]);
    node.low = {std::min(node.low.x, a), std::min(node.low.y, b)};
    node.high = {std::max(node.high.x, a), std::max(node.high.y, b)};
  }
  nodes_.push_back(node);
  if (end - begin <= kLeaf) return at;
  const int axis = node.high.x - node.low.x >= node.high.y - node.low.y ? 0 : 1;
  const int32_t middle = begin + (end - begin) / 2;
  const auto before = [&](int32_t a, int32_t b) {
    const float u = y[2 * a + axis], v = y[2 * b + axis];
    return u < v || (u == v && a < b);  // the same order on every machine
  };
  std::nth_element(order_.begin() + begin, order_.begin() + middle, order_.begin() + end, before);
  grow(begin, middle, y);
  const int32_t right = grow(middle, end, y);
  nodes_[size_t(at)].right = right;
  return at;
}

void PlanarTree::set(const double* h, const Point* near) {
  h_ = h;
  for (size_t node = nodes_.size(); node-- > 0;) refresh(int32_t(node), h, near);
}

void PlanarTree::refresh(int32_t at, const double* h, const Point* near) {
  Node& node = nodes_[size_t(at)];
  Point sum{0.0, 0.0};
  if (node.right == 0) {
    for (int32_t k = node.begin; k < node.end; ++k) sum = {sum.x + near[k].x, sum.y + near[k].y};
  } else {
    for (const int32_t child : {at + 1, node.right}) {
      const Node& part = nodes_[size_t(child)];
      const double n = part.end - part.begin;
      sum = {sum.x + n * part.reference.x, sum.y + n * part.reference.y};
    }
  }
  const double n = node.end - node.begin;
  node.reference = {sum.x / n, sum.y / n};
  node.value = -INFINITY;
  for (int32_t k = node.begin; k < node.end; ++k) {
    node.value = std::max(node.value, dot(node.reference, y_[k]) + h[k]);
  }
}

double PlanarTree::bound(const Node& node, Point x) const {
  const Point d = minus(x, node.reference);
  return node.value + std::max(d.x * node.low.x, d.x * node.high.x) +
         std::max(d.y * node.low.y, d.y * node.high.y);
}

int32_t PlanarTree::best(Point x, double least, Vector<int32_t>* stack) const {
  int32_t found = -1;
  stack->clear();
  if (bound(nodes_[0], x) > least) stack->push_back(0);
  while (!stack->empty()) {
    const int32_t at = stack->back();
    stack->pop_back();
    const Node& node = nodes_[size_t(at)];
    if (found >= 0 && !(bound(node, x) > least)) continue;  // `least` has risen since
    if (node.right == 0) {
      for (int32_t k = node.begin; k < node.end; ++k) {
        const double score = dot(x, y_[k]) + h_[k];
        if (score > least) {
          least = score;
          found = k;
        }
      }
      continue;
    }
    const double left = bound(nodes_[size_t(at) + 1], x);
    const double right = bound(nodes_[size_t(node.right)], x);
    const bool left_last = left > right;  // the better one is looked at first
    if (left_last && right > least) stack->push_back(node.right);
    if (left > least) stack->push_back(at + 1);
    if (!left_last && right > least) stack->push_back(node.right);
  }
  return found;
}

// --- the cells -----------------------------------------------------------------------------------

PlanarCells::PlanarCells(const float* y, int64_t N, SourceKind source)
    : N_(N),
      source_(source),
      tree_(y, N),
      y_(tree_.targets()),
      mass_(N, 0.0),
      near_(N),
      first_(N, 0),
      last_(N, 0),
      edges_(size_t((N + kBlock - 1) / kBlock)) {}

// Where cells lie before there are any: the gradient of the paraboloid that is nearest to -h.
void PlanarCells::guess(const double* h) {
  double normal[4][5] = {};
  for (int64_t i = 0; i < N_; ++i) {
    const double row[5] = {1.0, y_[i].x, y_[i].y, 0.5 * dot(y_[i], y_[i]), -h[i]};
    for (int a = 0; a < 4; ++a) {
      for (int b = 0; b < 5; ++b) normal[a][b] += row[a] * row[b];
    }
  }
  for (int a = 0; a < 4; ++a) {
    normal[a][a] *= 1 + 1e-9;
    const double pivot = std::max(normal[a][a], 1e-300);
    for (int b = a; b < 5; ++b) normal[a][b] /= pivot;
    for (int row = 0; row < 4; ++row) {
      const double times = row == a ? 0.0 : normal[row][a];
      for (int b = a; b < 5; ++b) normal[row][b] -= times * normal[a][b];
    }
  }
  const Point shift{normal[1][4], normal[2][4]};
  const double bend = normal[3][4];
  for (int64_t i = 0; i < N_; ++i) {
    near_[i] = {shift.x + bend * y_[i].x, shift.y + bend * y_[i].y};
  }
}

void PlanarCells::build(const double* h, Poll* poll) {
  if (h_ == nullptr) guess(h);
  h_ = h;
  tree_.set(h, near_.data());
  const int64_t blocks = int64_t(edges_.size());
  const auto some = [&](int64_t begin, int64_t end) {
    Scratch scratch;
    for (int64_t block = begin; block < end; ++block) {
      Vector<Edge> edges;
      edges.reserve(edges_[size_t(block)].size() + 64);
      const int64_t stop = std::min(N_, (block + 1) * kBlock);
      for (int64_t i = block * kBlock; i < stop; ++i) {
        make(i, edges_[size_t(block)], &scratch, &edges);
        if (i % 32 == 0) heartbeat();
      }
      edges_[size_t(block)].swap(edges);
    }
  };
  parallel_for(blocks, 1, some, poll, threads_for(5000.0 * double(N_)));
}

void PlanarCells::make(int64_t i, const Vector<Edge>& before, Scratch* scratch,
                       Vector<Edge>* edges) {
  const bool normal = source_ == SourceKind::normal;
  const double low = normal ? -kFar : 0.0, high = normal ? kFar : 1.0;
  scratch->polygon.assign({{{low, low}, -1, false},
                           {{high, low}, -2, false},
                           {{high, high}, -3, false},
                           {{low, high}, -4, false}});
  scratch->tried.clear();
  for (int32_t k = first_[i]; k < last_[i]; ++k) cut(i, before[size_t(k)].beyond, scratch);
  if (first_[i] ==
      last_[i]) {  // nothing is known: those nearby in the tree leave little to ask for
    const int64_t stop = std::min(N_, i + kLeaf + 1);
    for (int64_t j = std::max<int64_t>(0, i - kLeaf); j < stop; ++j) {
      if (j != i) cut(i, int32_t(j), scratch);
    }
  }
  find(i, scratch);
  first_[i] = int32_t(edges->size());
  measure(i, *scratch, edges);
  last_[i] = int32_t(edges->size());
}

// Takes off what is nearer to j.
void PlanarCells::cut(int64_t i, int32_t j, Scratch* scratch) const {
  Vector<Corner>&polygon = scratch->polygon, &kept = scratch->cut;
  Vector<double>& side = scratch->side;
  scratch->tried.push_back(j);
  const Point across = minus(y_[i], y_[j]);
  const double offset = h_[i] - h_[j];
  const size_t n = polygon.size();
  side.resize(n);
  bool cuts = false;
  for (size_t k = 0; k < n; ++k) {
    side[k] = dot(polygon[k].at, across) + offset;
    cuts |= side[k] < 0;
  }
  if (!cuts) return;
  kept.clear();
  for (size_t k = 0; k < n; ++k) {
    const size_t next = k + 1 < n ? k + 1 : 0;
    const bool in = side[k] >= 0, next_in = side[next] >= 0;
    if (in) kept.push_back(polygon[k]);
    if (in == next_in) continue;
    const double t = side[k] / (side[k] - side[next]);
    const Point a = polygon[k].at, b = polygon[next].at;
    const Point at{a.x + t * (b.x - a.x), a.y + t * (b.y - a.y)};
    kept.push_back({at, in ? j : polygon[k].beyond, false});
  }
  polygon.swap(kept);
}

// Cuts by whoever is better at a corner, until nobody is.
void PlanarCells::find(int64_t i, Scratch* scratch) const {
  Vector<Corner>& polygon = scratch->polygon;
  size_t k = 0;
  while (k < polygon.size()) {
    if (polygon[k].sure) {
      ++k;
      continue;
    }
    const Point x = polygon[k].at;
    const double score = dot(x, y_[i]) + h_[i];
    const double size = std::fabs(x.x * y_[i].x) + std::fabs(x.y * y_[i].y) + std::fabs(h_[i]);
    const int32_t j = tree_.best(x, score + kRounding * size, &scratch->stack);
    const Vector<int32_t>& tried = scratch->tried;
    // One that has cut before is better by rounding alone.
    if (j < 0 || j == i || std::find(tried.begin(), tried.end(), j) != tried.end()) {
      polygon[k++].sure = true;
      continue;
    }
    cut(i, j, scratch);
    k = 0;  // most corners are sure by now
  }
}

// Mass of the cell, its edges, and a point near it.
void PlanarCells::measure(int64_t i, const Scratch& scratch, Vector<Edge>* edges) {
  const Vector<Corner>& polygon = scratch.polygon;
  const size_t n = polygon.size();
  mass_[i] = 0.0;
  if (n < 3) return;
  const Point origin = polygon[0].at;
  Point sum{0, 0};
  double mass = 0;
  for (size_t k = 0; k < n; ++k) {
    const Point a = polygon[k].at, b = polygon[k + 1 < n ? k + 1 : 0].at, along_it = minus(b, a);
    const double length = std::sqrt(dot(along_it, along_it));
    sum = {sum.x + a.x, sum.y + a.y};
    if (!(length > 0)) continue;
    double density = length;
    if (source_ == SourceKind::normal) {
      const Point unit{along_it.x / length, along_it.y / length};
      const double d = a.x * unit.y - a.y * unit.x, from = dot(a, unit);
      const Along found = along(d, from, from + length);
      mass += found.wedge;
      density = found.density;
    } else {
      const Point u = minus(a, origin), v = minus(b, origin);
      mass += 0.5 * (u.x * v.y - u.y * v.x);
    }
    if (polygon[k].beyond < 0) continue;
    const Point apart = minus(y_[i], y_[polygon[k].beyond]);
    edges->push_back({polygon[k].beyond, density / std::sqrt(dot(apart, apart))});
  }
  mass_[i] = std::max(0.0, mass);
  near_[i] = {sum.x / double(n), sum.y / double(n)};
}

}  // namespace otcuda::cpu
