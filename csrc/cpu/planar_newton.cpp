// SPDX-License-Identifier: Apache-2.0
#include "cpu/planar_newton.h"

#include <algorithm>
#include <cmath>

#include "common/alloc.h"
#include "common/threads.h"
#include "cpu/conjugate_gradients.h"
#include "cpu/graph_cholesky.h"
#include "cpu/planar_cells.h"

namespace otcuda::cpu {
namespace {

constexpr double kLeastShare = 0.1;  // of the least m_i / nu_i at the start
constexpr double kLeastStep = 1e-5;

// Arrays are in the order of the tree's leaves; `out_` is the caller's.
class Newton {
 public:
  Newton(const PlanarProblem& problem, double* h, Poll* poll)
      : out_(h),
        poll_(poll),
        N_(problem.N),
        cells_(problem.y, N_, problem.source),
        nu_(N_),
        h_(N_),
        trial_(N_),
        step_(N_),
        factor_(N_) {
    const Buffer<int32_t>& order = cells_.order();
    for (int64_t i = 0; i < N_; ++i) {
      nu_[i] = problem.nu[order[i]];
      h_[i] = h[order[i]];
    }
  }

  PlanarResult run(const PlanarSettings& settings) {
    PlanarResult result{0.0, settings.least, settings.step, 0, 0, 0, false};
    measure(h_, &result);
    if (!(result.least > 0)) result.least = kLeastShare * std::min(1.0, share_);
    result.stuck = !(result.least > 0);
    while (!result.stuck && result.chi2 > settings.tolerance &&
           result.iterations < settings.iterations) {
      solve();
      result.entries = factor_.entries();
      result.stuck = !search(&result);
      if (result.stuck) break;
      std::swap(h_, trial_);
      for (int64_t i = 0; i < N_; ++i) out_[cells_.order()[i]] = h_[i];
      ++result.iterations;
    }
    return result;
  }

 private:
  // Finds how far along the step to go; whether it is anywhere. Then the cells are those of trial_.
  bool search(PlanarResult* result) {
    const double before = result->chi2;
    for (double size = result->step; size > kLeastStep; size *= 0.5) {
      for (int64_t i = 0; i < N_; ++i) trial_[i] = h_[i] + size * step_[i];
      measure(trial_, result);
      if (share_ >= result->least && std::sqrt(result->chi2 / before) <= 1 - 0.5 * size) {
        result->step = std::min(1.0, 2 * size);
        return true;
      }
    }
    result->chi2 = before;
    return false;
  }

  void measure(const Buffer<double>& h, PlanarResult* result) {
    cells_.build(h.data(), poll_);
    ++result->diagrams;
    result->chi2 = 0.0;
    share_ = INFINITY;
    for (int64_t i = 0; i < N_; ++i) {
      const double off = cells_.mass(i) - nu_[i];
      result->chi2 += off * off / nu_[i];
      share_ = std::min(share_, cells_.mass(i) / nu_[i]);
    }
  }

  // H step = nu - mass.
  void solve() {
    // Both cells know their edge, to rounding: half of it from each.
    factor_.connect([&](int64_t i, const auto& visit) {
      cells_.edges(i, [&](const Edge& edge) { visit(edge.beyond, 0.5 * edge.weight); });
    });
    for (int64_t i = 0; i < N_; ++i) step_[i] = nu_[i] - cells_.mass(i);
    factor_.factor(poll_);
    factor_.solve(&step_);
    centre(&step_);
  }

  double* const out_;
  Poll* const poll_;
  const int64_t N_;
  PlanarCells cells_;
  double share_ = 0.0;  // least m_i / nu_i of the last diagram
  Buffer<double> nu_, h_, trial_, step_;
  GraphCholesky factor_;
};

}  // namespace

void planar_mass(const float* y, int64_t N, SourceKind source, const double* h, double* mass,
                 Poll* poll) {
  const DefaultFloatMode mode;
  PlanarCells cells(y, N, source);
  const Buffer<int32_t>& order = cells.order();
  Buffer<double> heights(N);
  for (int64_t i = 0; i < N; ++i) heights[i] = h[order[i]];
  cells.build(heights.data(), poll);
  for (int64_t i = 0; i < N; ++i) mass[order[i]] = cells.mass(i);
}

PlanarResult planar_newton(const PlanarProblem& problem, const PlanarSettings& settings, double* h,
                           Poll* poll) {
  const DefaultFloatMode mode;
  return Newton(problem, h, poll).run(settings);
}

}  // namespace otcuda::cpu
