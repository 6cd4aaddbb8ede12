// SPDX-License-Identifier: Apache-2.0
#include "cpu/cell_mass.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>

#include "common/alloc.h"
#include "common/backend_info.h"
#include "common/cell_mass.h"
#include "common/check.h"
#include "common/threads.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kHistogramBytes = 64 << 20;
constexpr double kSampleNanoseconds = 2.0;

// The first sample whose index is no cell, or B.
int64_t first_stray(const int64_t* index, int64_t B, int64_t N) {
  int64_t b = 0;
  while (b < B && index[b] >= -1 && index[b] < N) ++b;
  return b;
}

void check_cells(const int64_t* index, int64_t B, int64_t N) {
  const int64_t b = first_stray(index, B, N);
  OTCUDA_CHECK(b == B, "index[" + std::to_string(b) + "] is " + std::to_string(index[b]) +
                           ", expected -1 (left out) to N - 1 = " + std::to_string(N - 1));
}

// sums[i] += integer(b) for every b with index[b] = i. Integer sums do not care how the work is
// shared.
template <class Integer>
void accumulate(const int64_t* index, int64_t B, int64_t N, const Integer& integer, int64_t* sums) {
  std::fill(sums, sums + N, 0);
  const auto add = [&](int64_t begin, int64_t end, int64_t lowest, int64_t highest, int64_t* into) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t i = index[b];
      if (i >= lowest && i < highest) into[i] += integer(b);
    }
  };
  const int threads = threads_for(kSampleNanoseconds * double(B));
  if (threads == 1) {
    add(0, B, 0, N, sums);
  } else if (N * threads * int64_t(sizeof(int64_t)) <= kHistogramBytes) {
    Buffer<int64_t> parts(N * threads, 0);
    const int64_t share = (B + threads - 1) / threads;
    parallel_for(
        threads, 1,
        [&](int64_t part, int64_t) {
          add(std::min(B, part * share), std::min(B, (part + 1) * share), 0, N,
              parts.data() + part * N);
        },
        nullptr, threads);
    for (int64_t k = 0; k < N * threads; ++k) sums[k % N] += parts[k];
  } else {
    const int64_t share = (N + threads - 1) / threads;
    parallel_for(
        threads, 1,
        [&](int64_t part, int64_t) {
          add(0, B, std::min(N, part * share), std::min(N, (part + 1) * share), sums);
        },
        nullptr, threads);
  }
}

template <class Weight>
void weighted(const int64_t* index, const Weight* weights, int64_t B, int64_t N, Weight* mass) {
  const DefaultFloatMode mode;
  double largest = 0.0;
  for (int64_t b = 0; b < B; ++b) {
    const double size = std::fabs(double(weights[b]));
    OTCUDA_CHECK(std::isfinite(size),
                 "weights[" + std::to_string(b) + "] is not finite; weights are finite numbers");
    largest = std::max(largest, size);
  }
  const int k = cell_mass_scale(largest, std::max<int64_t>(B, 1));
  Buffer<int64_t> sums(N);
  accumulate(
      index, B, N, [=](int64_t b) { return cell_mass_fixed(double(weights[b]), k); }, sums.data());
  for (int64_t i = 0; i < N; ++i) mass[i] = Weight(cell_mass_value(sums[i], k));
}

}  // namespace

void cell_mass_counts(const int64_t* index, int64_t B, int64_t N, int64_t* mass) {
  check_cells(index, B, N);
  count_backend_path(BackendPath::cell_mass_cpu, B);
  accumulate(index, B, N, [](int64_t) { return int64_t(1); }, mass);
}

void cell_mass_sums(const TensorView& index, const TensorView& weights, const TensorView& mass) {
  const int64_t B = index.shape[0], N = mass.shape[0];
  check_cells(index.read<int64_t>(), B, N);
  count_backend_path(BackendPath::cell_mass_cpu, B);
  if (weights.dtype == DType::f32) {
    weighted(index.read<int64_t>(), weights.read<float>(), B, N, mass.write<float>());
  } else {
    weighted(index.read<int64_t>(), weights.read<double>(), B, N, mass.write<double>());
  }
}

}  // namespace otcuda::cpu
