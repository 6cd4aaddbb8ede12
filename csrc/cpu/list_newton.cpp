// SPDX-License-Identifier: Apache-2.0
#include "cpu/list_newton.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/alloc.h"
#include "common/threads.h"
#include "cpu/conjugate_gradients.h"

namespace otcuda::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kMostK = 24;
constexpr int64_t kBeat = 2048;             // samples between two heartbeats
constexpr float kSmoothing = 0.5f;          // temperature of a cell, in its gaps
constexpr float kLeastWeight = 1e-3f;       // of a softmax that enters the Hessian
constexpr float kFarthest = 12.0f;          // temperatures below the best at which exp counts as 0
constexpr double kPrior = 2.0;              // samples that a local gap is shrunk by
constexpr double kGradientTolerance = 0.1;  // of CG, relative
constexpr int kCgIterations = 100;
constexpr int64_t kFew = 2;         // cells that may be in no list without a word ...
constexpr double kFewShare = 1e-3;  // ... or a share of all: they are worth no new lists
constexpr double kSteps[] = {1.0, 0.5, 0.25, 0.1};
constexpr double kFirstDamping = 0.1, kLeastDamping = 1e-3, kMostDamping = 100.0;

// Runs body(part, begin, end) over the parts of the samples.
template <class Body>
void over_parts(int64_t M, const Body& body, Poll* poll) {
  const int64_t size = (M + kListParts - 1) / kListParts;
  const auto one = [&](int64_t part, int64_t) {
    const int64_t end = std::min(M, (part + 1) * size);
    for (int64_t begin = std::min(M, part * size); begin < end; begin += kBeat) {
      body(part, begin, std::min(end, begin + kBeat));
      heartbeat();
    }
  };
  parallel_for(kListParts, 1, one, poll, threads_for(30.0 * double(M)));
}

// A sum for each cell: parts add to rows of their own, which are then added in order.
template <class T>
class CellSums {
 public:
  explicit CellSums(int64_t N) : N_(N), rows_(N * kListParts, T(0)) {}
  T* row(int64_t part) { return rows_.data() + part * N_; }
  T operator[](int64_t i) const {
    T sum = T(0);
    for (int part = 0; part < kListParts; ++part) sum += rows_[part * N_ + i];
    return sum;
  }
  void clear() { rows_.fill(T(0)); }

 private:
  const int64_t N_;
  Buffer<T> rows_;
};

struct Best {
  float value, second;
  int32_t index;
};

inline Best best_of(const CellLists& lists, const float* h, int64_t s) {
  const int32_t* const index = lists.index + s * lists.K;
  const float* const inner = lists.inner + s * lists.K;
  Best best{-kInfinity, -kInfinity, index[0]};
  for (int64_t k = 0; k < lists.K; ++k) {
    const float value = inner[k] + h[index[k]];
    if (value > best.value || (value == best.value && index[k] < best.index)) {
      best.second = best.value;
      best.value = value;
      best.index = index[k];
    } else {
      best.second = std::max(best.second, value);
    }
  }
  return best;
}

void narrow(const double* h, Buffer<float>* out) {
  for (int64_t i = 0; i < out->size(); ++i) (*out)[i] = float(h[i]);
}

// max - min of d over the list of sample s.
inline float oscillation(const CellLists& lists, const float* d, int64_t s) {
  const int32_t* const index = lists.index + s * lists.K;
  float low = d[index[0]], high = low;
  for (int64_t k = 1; k < lists.K; ++k) {
    low = std::min(low, d[index[k]]);
    high = std::max(high, d[index[k]]);
  }
  return high - low;
}

inline float half_reach(const CellLists& lists, int64_t s) {
  return std::max(0.5f * lists.reach[s], 1e-12f);
}

// The weights of a softmax that matter, sample by sample.
struct ActivePart {
  Vector<int32_t> index;
  Vector<float> weight;
  Vector<int32_t> ends;   // of each kept sample
  Vector<float> inverse;  // 1 / eps of each kept sample
};

// One Newton solve: lists, what it measures on them, and its working space.
class Newton {
 public:
  Newton(const CellLists& lists, const double* nu, const double* gap,
         const NewtonSettings& settings, double* h, Poll* poll)
      : lists_(lists),
        nu_(nu),
        gap_(gap),
        settings_(settings),
        h_(h),
        poll_(poll),
        N_(lists.N),
        counts_(N_),
        trial_counts_(N_),
        unlisted_(N_),
        gradient_(N_),
        trial_(N_),
        cg_(N_),
        narrow_(N_),
        start_(N_),
        sums_(N_) {
    std::copy(h, h + N_, start_.data());
    // A cell that is due less than one sample may well be in no list.
    for (int64_t i = 0; i < N_; ++i) unlisted_[i] = nu[i] * double(lists.M) >= 1.0;
    for (int64_t k = 0; k < lists.M * lists.K; ++k) unlisted_[lists.index[k]] = 0;
  }

  NewtonResult run() {
    NewtonResult result{0.0, 0.0, 0, 0, false};
    int64_t missing = 0;
    for (const char each : unlisted_) missing += each;
    result.unlisted = double(missing) > std::max(double(kFew), kFewShare * double(N_));
    double energy = measure(h_, &counts_);
    double damping = kFirstDamping;
    for (; result.iterations < settings_.iterations; ++result.iterations) {
      result.residual = gradient();
      if (result.residual < settings_.tolerance) break;
      find_active();
      result.cg_iterations += solve(damping);
      for (int64_t i = 0; i < N_; ++i) {
        if (unlisted_[i]) cg_.step[i] = result.unlisted ? gap_[i] : 0.0;
      }
      centre(&cg_.step);
      const double far = quantile_of_ratio(cg_.step);
      const double scale = far > settings_.room ? settings_.room / far : 1.0;
      const double size = search(scale, &energy);
      if (size == 0.0) {
        damping *= 8;
        if (damping > kMostDamping) break;
        continue;
      }
      if (size == 1.0) damping = std::max(kLeastDamping, damping / 3);
      for (int64_t i = 0; i < N_; ++i) trial_[i] = h_[i] - start_[i];
      if (result.unlisted || quantile_of_ratio(trial_) > settings_.room) {
        ++result.iterations;
        break;
      }
    }
    result.residual = gradient();
    result.energy = energy;
    return result;
  }

 private:
  // Energy at h, and the counts there.
  double measure(const double* h, Buffer<int64_t>* counts) {
    const double value = list_measure(lists_, h, counts->data(), nullptr, nullptr, poll_);
    double linear = 0.0;
    for (int64_t i = 0; i < N_; ++i) linear += h[i] * nu_[i];
    return value - linear;
  }

  // Writes the gradient; returns chi2 over its floor.
  double gradient() {
    double chi2 = 0.0;
    for (int64_t i = 0; i < N_; ++i) {
      gradient_[i] = double(counts_[i]) / double(lists_.M) - nu_[i];
      chi2 += gradient_[i] * gradient_[i] / nu_[i];
    }
    return chi2 * double(lists_.M) / std::max(1.0, double(N_ - 1));
  }

  void find_active() {
    narrow(h_, &narrow_);
    for (ActivePart& part : active_) {
      part.index.clear();
      part.weight.clear();
      part.ends.clear();
      part.inverse.clear();
    }
    over_parts(
        lists_.M,
        [&](int64_t part, int64_t begin, int64_t end) {
          for (int64_t s = begin; s < end; ++s) add_active(s, &active_[part]);
        },
        poll_);
  }

  void add_active(int64_t s, ActivePart* part) {
    const int32_t* const index = lists_.index + s * lists_.K;
    const float* const inner = lists_.inner + s * lists_.K;
    const Best best = best_of(lists_, narrow_.data(), s);
    const float inverse = 1.0f / std::max(kSmoothing * float(gap_[best.index]), 1e-30f);
    float weight[kMostK], total = 0.0f;
    for (int64_t k = 0; k < lists_.K; ++k) {
      const float below = (inner[k] + narrow_[index[k]] - best.value) * inverse;
      weight[k] = below < -kFarthest ? 0.0f : std::exp(below);
      total += weight[k];
    }
    const float least = kLeastWeight * total;
    int kept = 0;
    for (int64_t k = 0; k < lists_.K; ++k) kept += weight[k] > least;
    if (kept < 2) return;
    for (int64_t k = 0; k < lists_.K; ++k) {
      if (!(weight[k] > least)) continue;
      part->index.push_back(index[k]);
      part->weight.push_back(weight[k] / total);
    }
    part->ends.push_back(int32_t(part->index.size()));
    part->inverse.push_back(inverse);
  }

  // out = H u, or the diagonal of H.
  void hessian(const double* u, double* out) {
    sums_.clear();
    const auto one = [&](int64_t part, int64_t) {
      const ActivePart& a = active_[part];
      double* const row = sums_.row(part);
      int32_t begin = 0;
      for (size_t s = 0; s < a.ends.size(); ++s) {
        const int32_t end = a.ends[s];
        if (u == nullptr) {
          for (int32_t k = begin; k < end; ++k) {
            row[a.index[k]] += double(a.inverse[s]) * a.weight[k] * (1.0 - a.weight[k]);
          }
        } else {
          double mean = 0.0, total = 0.0;
          for (int32_t k = begin; k < end; ++k) {
            mean += a.weight[k] * u[a.index[k]];
            total += a.weight[k];
          }
          mean /= total;
          for (int32_t k = begin; k < end; ++k) {
            row[a.index[k]] += double(a.inverse[s]) * a.weight[k] * (u[a.index[k]] - mean);
          }
        }
        begin = end;
        if (s % kBeat == 0) heartbeat();
      }
    };
    parallel_for(kListParts, 1, one, poll_, threads_for(20.0 * double(lists_.M)));
    for (int64_t i = 0; i < N_; ++i) out[i] = sums_[i] / double(lists_.M);
  }

  double ridge(int64_t i, double damping) const { return damping * nu_[i] / gap_[i]; }

  // step = -(H + ridge)^-1 gradient; returns the iterations.
  int solve(double damping) {
    hessian(nullptr, cg_.diagonal.data());
    for (int64_t i = 0; i < N_; ++i) {
      cg_.diagonal[i] += ridge(i, damping);
      cg_.residual[i] = -gradient_[i];
    }
    return cg_.solve(kGradientTolerance, kCgIterations, [&] {
      hessian(cg_.direction.data(), cg_.image.data());
      for (int64_t i = 0; i < N_; ++i) cg_.image[i] += ridge(i, damping) * cg_.direction[i];
    });
  }

  // 99 % quantile of ratio_s over the samples, or over enough of them.
  double quantile_of_ratio(const Buffer<double>& d) {
    narrow(d.data(), &narrow_);
    const int64_t every = std::max<int64_t>(1, lists_.M >> 17), n = (lists_.M + every - 1) / every;
    Buffer<float> ratio(n);
    over_parts(
        n,
        [&](int64_t, int64_t begin, int64_t end) {
          for (int64_t k = begin; k < end; ++k) {
            const int64_t s = k * every;
            ratio[k] = oscillation(lists_, narrow_.data(), s) / half_reach(lists_, s);
          }
        },
        poll_);
    float* const place = ratio.begin() + int64_t(0.99 * double(n - 1));
    std::nth_element(ratio.begin(), place, ratio.end());
    return double(*place);
  }

  // Moves h along the step until the energy falls; returns the share of the step, 0 for none.
  double search(double scale, double* energy) {
    for (const double size : kSteps) {
      for (int64_t i = 0; i < N_; ++i) trial_[i] = h_[i] + size * scale * cg_.step[i];
      const double at_trial = measure(trial_.data(), &trial_counts_);
      if (at_trial < *energy) {
        std::copy(trial_.begin(), trial_.end(), h_);
        std::swap(counts_, trial_counts_);
        *energy = at_trial;
        return size;
      }
    }
    return 0.0;
  }

  const CellLists& lists_;
  const double* const nu_;
  const double* const gap_;
  const NewtonSettings& settings_;
  double* const h_;
  Poll* const poll_;
  const int64_t N_;
  Buffer<int64_t> counts_, trial_counts_;
  Buffer<char> unlisted_;
  Buffer<double> gradient_, trial_;
  ConjugateGradients cg_;
  Buffer<float> narrow_;
  Buffer<double> start_;
  CellSums<double> sums_;
  ActivePart active_[kListParts];
};

}  // namespace

bool list_check(const CellLists& lists) {
  bool inside = true;
  for (int64_t k = 0; k < lists.M * lists.K; ++k) {
    inside &= lists.index[k] >= 0 && lists.index[k] < lists.N;
  }
  return inside;
}

double list_measure(const CellLists& lists, const double* h, int64_t* counts, double* gap,
                    double* mean_gap, Poll* poll) {
  const DefaultFloatMode mode;
  const int64_t N = lists.N;
  Buffer<float> heights(N);
  narrow(h, &heights);
  CellSums<int32_t> count(N), seen(gap != nullptr ? N : 0);
  CellSums<double> gaps(gap != nullptr ? N : 0);
  double values[kListParts] = {};
  over_parts(
      lists.M,
      [&](int64_t part, int64_t begin, int64_t end) {
        for (int64_t s = begin; s < end; ++s) {
          const Best best = best_of(lists, heights.data(), s);
          ++count.row(part)[best.index];
          values[part] += double(best.value);
          if (gap == nullptr) continue;
          const float reach = std::max(lists.reach[s], 1e-12f), room = best.value - best.second;
          gaps.row(part)[best.index] += double(std::min(room, reach));
          seen.row(part)[best.index] += room < reach;
        }
      },
      poll);
  double value = 0.0;
  for (const double each : values) value += each;
  for (int64_t i = 0; i < N; ++i) counts[i] = count[i];
  if (gap != nullptr) {
    double sum = 0.0, uncensored = 0.0;
    for (int64_t i = 0; i < N; ++i) {
      sum += gaps[i];
      uncensored += seen[i];
    }
    *mean_gap = sum / std::max(1.0, uncensored);
    for (int64_t i = 0; i < N; ++i) {
      gap[i] = (gaps[i] + kPrior * *mean_gap) / (double(seen[i]) + kPrior);
    }
  }
  return value / double(lists.M);
}

NewtonResult list_newton(const CellLists& lists, const double* nu, const double* gap,
                         const NewtonSettings& settings, double* h, Poll* poll) {
  const DefaultFloatMode mode;
  return Newton(lists, nu, gap, settings, h, poll).run();
}

}  // namespace otcuda::cpu
