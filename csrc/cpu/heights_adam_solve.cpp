// SPDX-License-Identifier: Apache-2.0
#include "cpu/heights_adam_solve.h"

#include <algorithm>
#include <limits>

#include "common/alloc.h"
#include "common/heights_adam_solve.h"
#include "common/threads.h"
#include "cpu/cell_mass.h"
#include "cpu/power_argmax.h"

namespace otcuda::cpu {
namespace {

// Sum of term(i) in the order of the contract.
template <class Term>
double sum_over_cells(int64_t N, const Term& term) {
  double total = 0.0;
  for (int64_t begin = 0; begin < N; begin += kCellBlock) {
    double block = 0.0;
    for (int64_t i = begin; i < std::min(N, begin + kCellBlock); ++i) block += term(i);
    total += block;
  }
  return total;
}

template <class T>
void centre(T* h, int64_t N) {
  const auto finite = [=](int64_t i) { return is_finite(double(h[i])); };
  const double count = sum_over_cells(N, [&](int64_t i) { return finite(i) ? 1.0 : 0.0; });
  const double sum = sum_over_cells(N, [&](int64_t i) { return finite(i) ? double(h[i]) : 0.0; });
  if (count == 0.0) return;
  const double mean = sum / count;
  for (int64_t i = 0; i < N; ++i) h[i] = T(double(h[i]) - mean);
}

template <class T>
void run(const HeightsProblem<T>& p, const AdamSchedule& schedule, const HeightsState<T>& state,
         int64_t* step, double* chi2, Poll* poll) {
  const DefaultFloatMode mode;
  const int64_t batch = schedule.batch;
  Buffer<T> x(batch * p.D), value(batch), mass(p.N);
  Buffer<int64_t> index(batch), counts(p.N);
  AdamSettings adam = schedule.adam;
  for (int64_t k = 0; k < schedule.iterations; ++k) {
    // The argmax polls too, and would report its own progress: it is told that of the whole.
    Poll inner([&](double part) {
      poll->call((double(k) + part) / double(schedule.iterations));
      return true;
    });
    const int64_t now = *step + 1;
    source_samples({p.source, p.seed, uint64_t(now)}, 0, batch * p.D, x.data());
    power_argmax({x.data(), p.y, state.h, batch, p.N, p.D, value.data(), index.data()}, &inner);
    cell_mass_counts(index.data(), batch, p.N, counts.data());
    const double sum =
        sum_over_cells(p.N, [&](int64_t i) { return chi2_term(counts[i], double(p.nu[i])); });
    chi2[k] = batch > 1 ? chi2_from_sum(sum, batch) : std::numeric_limits<double>::quiet_NaN();
    for (int64_t i = 0; i < p.N; ++i) mass[i] = mass_from_count<T>(counts[i], batch);
    adam.lr = schedule.lr[k];
    // From here to the end of the iteration nothing can throw: the state stays whole.
    heights_adam_step(state, mass.data(), p.nu, p.N, adam, schedule.bias_correction ? now : 0);
    if (now % kCentringPeriod == 0) centre(state.h, p.N);
    *step = now;
    (*poll)(double(k + 1) / double(schedule.iterations));
  }
}

}  // namespace

void heights_adam_solve(const HeightsProblem<float>& problem, const AdamSchedule& schedule,
                        const HeightsState<float>& state, int64_t* step, double* chi2, Poll* poll) {
  run(problem, schedule, state, step, chi2, poll);
}

void heights_adam_solve(const HeightsProblem<double>& problem, const AdamSchedule& schedule,
                        const HeightsState<double>& state, int64_t* step, double* chi2,
                        Poll* poll) {
  run(problem, schedule, state, step, chi2, poll);
}

}  // namespace otcuda::cpu
