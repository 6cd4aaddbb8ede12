// SPDX-License-Identifier: Apache-2.0
#include "cpu/heights_asgd_solve.h"

#include <algorithm>

#include "common/alloc.h"
#include "common/heights_asgd_solve.h"
#include "common/threads.h"
#include "cpu/power_argmax.h"
#include "cpu/source_samples.h"
#include "cpu/top_cells.h"

namespace otcuda::cpu {
namespace {

// Counts the cells of one batch.
class Batch {
 public:
  Batch(const AsgdProblem& problem, int64_t batch)
      : p_(problem),
        batch_(batch),
        groups_(problem.product ? batch / (kHalves * kHalves) : 0),
        rows_(problem.product ? groups_ * kHalves : batch),
        x_(rows_ * problem.D),
        value_(batch),
        cut_(groups_ > 0 ? batch : 0),
        winner_(groups_ > 0 ? batch : 0),
        index_(groups_ > 0 ? 0 : batch),
        heights_(problem.N),
        counts_(problem.N) {}

  const Buffer<int64_t>& count(const double* h, int64_t stream, Poll* poll) {
    for (int64_t i = 0; i < p_.N; ++i) heights_[i] = float(h[i]);
    source_samples({p_.source, p_.seed, uint64_t(stream)}, 0, rows_ * p_.D, x_.data());
    counts_.fill(0);
    if (groups_ > 0) {
      const TopCells scan{x_.data(), p_.y, heights_.data(), groups_,       p_.N,       p_.D,
                          p_.D / 2,  1,    winner_.data(),  value_.data(), cut_.data()};
      top_cells_product(scan, poll);
      for (int64_t b = 0; b < batch_; ++b) ++counts_[winner_[b]];
    } else {
      power_argmax(
          {x_.data(), p_.y, heights_.data(), batch_, p_.N, p_.D, value_.data(), index_.data()},
          poll);
      for (int64_t b = 0; b < batch_; ++b) {
        if (index_[b] >= 0) ++counts_[index_[b]];
      }
    }
    return counts_;
  }

 private:
  const AsgdProblem& p_;
  const int64_t batch_, groups_, rows_;
  Buffer<float> x_, value_, cut_;
  Buffer<int32_t> winner_;
  Buffer<int64_t> index_;
  Buffer<float> heights_;
  Buffer<int64_t> counts_;
};

}  // namespace

void heights_asgd_solve(const AsgdProblem& p, const AsgdSchedule& schedule, const AsgdState& state,
                        Poll* poll) {
  const DefaultFloatMode mode;
  Batch batch(p, schedule.batch);
  for (int64_t k = 0; k < schedule.iterations; ++k) {
    // The scan polls too, and would report its own progress: it is told that of the whole.
    Poll inner([&](double part) {
      poll->call((double(k) + part) / double(schedule.iterations));
      return true;
    });
    const Buffer<int64_t>& counts = batch.count(state.h, *state.step + 1, &inner);
    // From here to the end of the step nothing can throw: the state stays whole.
    const double rate = schedule.rate[k], share = schedule.share[k];
    for (int64_t i = 0; i < p.N; ++i) {
      const double mass = double(counts[i]) / double(schedule.batch);
      const double move = rate * (mass - p.nu[i]) / p.nu[i];
      state.h[i] -= std::clamp(move, -schedule.limit, schedule.limit);
      state.mean[i] += share * (state.h[i] - state.mean[i]);
    }
    ++*state.step;
    (*poll)(double(k + 1) / double(schedule.iterations));
  }
}

}  // namespace otcuda::cpu
