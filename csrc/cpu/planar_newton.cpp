// SPDX-License-Identifier: Apache-2.0
#include "cpu/planar_newton.h"

#include <algorithm>
#include <cmath>

#include "common/alloc.h"
#include "common/threads.h"
#include "cpu/conjugate_gradients.h"
#include "cpu/planar_cells.h"

namespace otcuda::cpu {
namespace {

constexpr double kGradientTolerance = 3e-3;  // of CG, relative: small cells bear little error
constexpr double kLeastShare = 0.1;          // of the least m_i / nu_i at the start
constexpr int kCgIterations = 3000;
constexpr int64_t kRows = 2048;  // of a product, between two heartbeats
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
        cg_(N_) {
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
      result.cg_iterations += solve();
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
      for (int64_t i = 0; i < N_; ++i) trial_[i] = h_[i] + size * cg_.step[i];
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

  // Calls body(i) for all cells.
  template <class Body>
  void for_cells(const Body& body) {
    const auto rows = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(i);
    };
    parallel_for(N_, kRows, rows, poll_, threads_for(15.0 * double(N_)));
  }

  void hessian(const Buffer<double>& u, Buffer<double>* out) {
    for_cells([&](int64_t i) {
      double sum = 0.0;
      cells_.edges(i, [&](const Edge& edge) { sum += edge.weight * (u[i] - u[edge.beyond]); });
      (*out)[i] = sum;
    });
  }

  // H step = nu - mass; returns the iterations.
  int solve() {
    for_cells([&](int64_t i) {
      double sum = 0.0;
      cells_.edges(i, [&](const Edge& edge) { sum += edge.weight; });
      cg_.diagonal[i] = std::max(sum, 1e-300);
    });
    for (int64_t i = 0; i < N_; ++i) cg_.residual[i] = nu_[i] - cells_.mass(i);
    const auto apply = [&] { hessian(cg_.direction, &cg_.image); };
    const int turns = cg_.solve(kGradientTolerance, kCgIterations, apply);
    centre(&cg_.step);
    return turns;
  }

  double* const out_;
  Poll* const poll_;
  const int64_t N_;
  PlanarCells cells_;
  double share_ = 0.0;  // least m_i / nu_i of the last diagram
  Buffer<double> nu_, h_, trial_;
  ConjugateGradients cg_;
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
