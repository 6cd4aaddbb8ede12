// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cuda/device.h"
#include "cuda/heights_adam_solve.h"
#include "cuda/power_argmax.h"
#include "cuda/source_samples.h"

namespace otcuda::cuda {
namespace {

using Word = PanelKey;

constexpr int kThreads = int(kCellBlock);  // one thread a cell, one block a summand of the contract
constexpr int64_t kMostBatchBytes = int64_t(256) << 20;  // of samples drawn at a time
constexpr int64_t kChi2Rows = kCentringPeriod;           // steps whose block sums are kept

// Sum in the order of the contract: each block of 1024 cells by one thread, front to back.
__device__ __forceinline__ void sum_in_order(double term, double* terms, int64_t N, double* sum) {
  terms[threadIdx.x] = term;
  __syncthreads();
  if (threadIdx.x == 0) {
    const int64_t left = N - int64_t(blockIdx.x) * kCellBlock;
    const int count = int(left < kCellBlock ? left : kCellBlock);
    double total = 0.0;
#pragma unroll 8
    for (int k = 0; k < count; ++k) total = __dadd_rn(total, terms[k]);
    *sum = total;
  }
}

__device__ __forceinline__ double sum_of_blocks(const double* sums, int64_t N) {
  double total = 0.0;
  for (int64_t k = 0; k * kCellBlock < N; ++k) total = __dadd_rn(total, sums[k]);
  return total;
}

// Heights as the tile kernel reads them; float64 reads them as they are.
__device__ __forceinline__ void put_height(float* packed, int64_t i, float h) {
  if (packed) packed[i / kPanelRows * kPanelRows + panel_place(int(i % kPanelRows))] = h;
}

template <class T>
struct State {
  T *h, *m, *v;
  float* packed;
};

// Number of a step: known to the host, or counted from what the device holds.
struct StepNumber {
  const int64_t* base;
  int64_t plus;

  __device__ __forceinline__ int64_t value() const { return base == nullptr ? plus : *base + plus; }
  __device__ __forceinline__ bool centres() const {
    return base == nullptr || value() % kCentringPeriod == 0;
  }
};

template <class T>
struct AdamStep {
  AdamConstants<T> known;  // where the host knows the step
  AdamSettings adam;
  bool bias_correction;
  StepNumber step;

  __device__ __forceinline__ AdamConstants<T> constants() const {
    if (step.base == nullptr) return known;
    return adam_constants<T>(adam, bias_correction ? step.value() : 0);
  }
};

// mass and chi2 from the counts, the step, and zero counts for the next one.
template <class T>
__global__ void __launch_bounds__(kThreads)
    heights_adam_solve_step_kernel(Word* __restrict__ counts, const T* __restrict__ nu, int64_t N,
                                   int64_t batch, AdamStep<T> adam, State<T> state,
                                   double* __restrict__ block_sums) {
  OTCUDA_SHARED(terms, double[kThreads]);
  OTCUDA_SHARED(computed, AdamConstants<T>[1]);
  if (threadIdx.x == 0) computed[0] = adam.constants();
  const int64_t i = int64_t(blockIdx.x) * kCellBlock + threadIdx.x;
  int64_t count = 0;
  double term = 0.0;
  if (i < N) {
    count = int64_t(counts[i]);
    counts[i] = 0;
    term = chi2_term(count, double(nu[i]));
  }
  sum_in_order(term, terms, N, block_sums + blockIdx.x);  // its barrier is that of computed, too
  if (i >= N) return;
  heights_adam_update(mass_from_count<T>(count, batch), nu[i], computed[0], state.h + i,
                      state.m + i, state.v + i);
  put_height(state.packed, i, float(state.h[i]));
}

__global__ void heights_adam_solve_chi2_kernel(const double* __restrict__ block_sums, int64_t N,
                                               int64_t batch, int rows, double* __restrict__ chi2) {
  const int k = int(blockIdx.x) * 32 + int(threadIdx.x);
  if (k >= rows) return;
  const int64_t blocks = (N + kCellBlock - 1) / kCellBlock;
  const double sum = sum_of_blocks(block_sums + k * blocks, N);
  chi2[k] = batch > 1 ? chi2_from_sum(sum, batch) : bits_double(uint64_t(0x7FF8) << 48);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    heights_adam_solve_sum_kernel(const T* __restrict__ h, int64_t N, StepNumber step,
                                  double* __restrict__ sums, double* __restrict__ counts) {
  OTCUDA_SHARED(terms, double[kThreads]);
  if (!step.centres()) return;  // all threads
  const int64_t i = int64_t(blockIdx.x) * kCellBlock + threadIdx.x;
  const bool counted = i < N && is_finite(double(h[i]));
  sum_in_order(counted ? double(h[i]) : 0.0, terms, N, sums + blockIdx.x);
  __syncthreads();  // terms is used again
  sum_in_order(counted ? 1.0 : 0.0, terms, N, counts + blockIdx.x);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    heights_adam_solve_centre_kernel(const double* __restrict__ sums,
                                     const double* __restrict__ counts, int64_t N, StepNumber step,
                                     State<T> state) {
  OTCUDA_SHARED(mean, double[2]);
  if (!step.centres()) return;  // all threads
  if (threadIdx.x == 0) mean[0] = sum_of_blocks(sums, N);
  if (threadIdx.x == 1) mean[1] = sum_of_blocks(counts, N);
  __syncthreads();
  const int64_t i = int64_t(blockIdx.x) * kCellBlock + threadIdx.x;
  if (i >= N || mean[1] == 0.0) return;
  state.h[i] = T(__dadd_rn(double(state.h[i]), -exact_divide(mean[0], mean[1])));
  put_height(state.packed, i, float(state.h[i]));
}

__global__ void heights_adam_solve_tick_kernel(int64_t* step, int64_t more) { *step += more; }

// ---- samples and argmax of each dtype, `chunk` samples at a time

struct Float32Pass {
  Panels x, y;
  float* packed;
  PanelKey* keys;

  Float32Pass(Workspace* workspace, int64_t chunk, int64_t N, int64_t D)
      : x{nullptr, chunk, D}, y{nullptr, N, D} {
    x.data = workspace->take<float>(x.floats());
    y.data = workspace->take<float>(y.floats());
    packed = workspace->take<float>(y.panels() * kPanelRows);
    keys = workspace->take<PanelKey>(chunk);
  }
  void prepare(const SolveArguments& a, cudaStream_t stream) const {
    pack_panels(a.y.read<float>(), y, stream);
    pack_heights(a.h.read<float>(), y.rows, packed, stream);
  }
  void count(const SolveArguments&, const SampleSequence& sequence, int64_t B, Word* counts,
             cudaStream_t stream) const {
    const Panels samples{x.data, B, x.D};
    draw_panels(sequence, samples, stream);
    panels_argmax(samples, y, packed, keys, {nullptr, nullptr, counts}, stream);
  }
};

struct Float64Pass {
  double* x;
  double* values;
  int64_t* indices;
  float* packed = nullptr;

  Float64Pass(Workspace* workspace, int64_t chunk, int64_t N, int64_t D) {
    x = workspace->take<double>(chunk * D);
    values = workspace->take<double>(plain_scratch(chunk, N));
    indices = workspace->take<int64_t>(plain_scratch(chunk, N));
  }
  void prepare(const SolveArguments&, cudaStream_t) const {}
  void count(const SolveArguments& a, const SampleSequence& sequence, int64_t B, Word* counts,
             cudaStream_t stream) const {
    const int64_t N = a.y.shape[0], D = a.y.shape[1];
    draw_rows(sequence, B, D, x, stream);
    plain_argmax({x, a.y.read<double>(), a.h.read<double>(), B, N, D, values, indices},
                 {nullptr, nullptr, counts}, stream);
  }
};

template <class T>
struct PassOf;
template <>
struct PassOf<float> {
  using type = Float32Pass;
};
template <>
struct PassOf<double> {
  using type = Float64Pass;
};

int64_t chunk_samples(int64_t batch, int64_t D, int64_t bytes_each) {
  const int64_t most = kMostBatchBytes / (bytes_each * std::max<int64_t>(D, 1));
  const int64_t panels = std::clamp<int64_t>(most / kPanelRows, 1, 1 << 17);
  return std::min(ceil_div(batch, kPanelRows), panels) * kPanelRows;
}

template <class T>
struct Scratch {
  int64_t chunk;
  typename PassOf<T>::type pass;
  Word* counts;
  double* chi2_sums;  // [kChi2Rows, blocks of cells]
  double* mean_sums;  // [2, blocks of cells]

  Scratch(Workspace* workspace, int64_t N, int64_t D, int64_t batch)
      : chunk(chunk_samples(batch, D, sizeof(T))), pass(workspace, chunk, N, D) {
    const int64_t blocks = ceil_div(N, kCellBlock);
    counts = workspace->take<Word>(N);
    chi2_sums = workspace->take<double>(kChi2Rows * blocks);
    mean_sums = workspace->take<double>(2 * blocks);
  }
};

template <class T>
void centre(const SolveArguments& a, const Scratch<T>& scratch, const State<T>& state,
            const StepNumber& step, cudaStream_t stream) {
  const int64_t N = a.y.shape[0], blocks = ceil_div(N, kCellBlock);
  double* counts = scratch.mean_sums + blocks;
  const dim3 grid{unsigned(blocks)};
  OTCUDA_LAUNCH((heights_adam_solve_sum_kernel<T>), grid, dim3{kThreads}, 0, stream, state.h, N,
                step, scratch.mean_sums, counts);
  check_launch("heights_adam_solve");
  OTCUDA_LAUNCH((heights_adam_solve_centre_kernel<T>), grid, dim3{kThreads}, 0, stream,
                scratch.mean_sums, counts, N, step, state);
  check_launch("heights_adam_solve");
}

// Step k of the call. Where only the device knows its number, it decides on centring.
template <class T>
void one_step(const SolveArguments& a, const Scratch<T>& scratch, const State<T>& state, int64_t k,
              cudaStream_t stream) {
  const int64_t N = a.y.shape[0], blocks = ceil_div(N, kCellBlock);
  const bool known = a.device_step == nullptr;
  const StepNumber step{a.device_step, known ? *a.step + 1 : k + 1};
  for (int64_t b = 0; b < a.batch; b += scratch.chunk) {
    const SampleSequence sequence{a.source, a.seed, uint64_t(step.plus), uint64_t(b), step.base};
    scratch.pass.count(a, sequence, std::min(scratch.chunk, a.batch - b), scratch.counts, stream);
  }
  AdamSettings adam = a.adam;
  adam.lr = a.lr[k];
  const AdamStep<T> adam_step{adam_constants<T>(adam, known && a.bias_correction ? step.plus : 0),
                              adam, a.bias_correction, step};
  OTCUDA_LAUNCH((heights_adam_solve_step_kernel<T>), dim3{unsigned(blocks)}, dim3{kThreads}, 0,
                stream, scratch.counts, a.nu.read<T>(), N, a.batch, adam_step, state,
                scratch.chi2_sums + k % kChi2Rows * blocks);
  check_launch("heights_adam_solve");
  if (!known || step.plus % kCentringPeriod == 0) centre(a, scratch, state, step, stream);
}

// chi2 of the steps before `done` whose block sums are still kept.
template <class T>
void finish_chi2(const SolveArguments& a, const Scratch<T>& scratch, int64_t done,
                 cudaStream_t stream) {
  const int64_t first = (done - 1) / kChi2Rows * kChi2Rows;
  const int rows = int(done - first);
  OTCUDA_LAUNCH(heights_adam_solve_chi2_kernel, dim3{unsigned(ceil_div(rows, 32))}, dim3{32}, 0,
                stream, scratch.chi2_sums, a.y.shape[0], a.batch, rows,
                a.chi2.write<double>() + first);
  check_launch("heights_adam_solve");
}

// After the last step that was enqueued: what is left of chi2, and the count on the device.
template <class T>
void finish(const SolveArguments& a, const Scratch<T>& scratch, int64_t done, cudaStream_t stream) {
  if (done % kChi2Rows != 0) finish_chi2(a, scratch, done, stream);
  if (a.device_step == nullptr || done == 0) return;
  OTCUDA_LAUNCH(heights_adam_solve_tick_kernel, dim3{1}, dim3{1}, 0, stream, a.device_step, done);
  check_launch("heights_adam_solve");
}

template <class T>
void run(const SolveArguments& a, Workspace* workspace, Poll* poll, cudaStream_t stream) {
  const int64_t N = a.y.shape[0], D = a.y.shape[1], iterations = a.chi2.shape[0];
  const Scratch<T> scratch(workspace, N, D, a.batch);
  const State<T> state{a.h.write<T>(), a.m.write<T>(), a.v.write<T>(), scratch.pass.packed};
  scratch.pass.prepare(a, stream);
  check_cuda(cudaMemsetAsync(scratch.counts, 0, size_t(N) * sizeof(Word), stream),
             "heights_adam_solve");
  int64_t k = 0;
  try {
    while (k < iterations) {
      one_step(a, scratch, state, k, stream);
      if (a.device_step == nullptr) ++*a.step;
      if (++k % kChi2Rows == 0) finish_chi2(a, scratch, k, stream);
      (*poll)(double(k) / double(iterations));
    }
  } catch (...) {  // poll stopped the call: the steps so far count
    finish(a, scratch, k, stream);
    throw;
  }
  finish(a, scratch, k, stream);
}

}  // namespace

int64_t heights_adam_solve_workspace(DType dtype, int64_t N, int64_t D, int64_t batch) {
  Workspace count;
  if (dtype == DType::f64) {
    Scratch<double>(&count, N, D, batch);
  } else {
    Scratch<float>(&count, N, D, batch);
  }
  return count.used();
}

void heights_adam_solve(const SolveArguments& arguments, const TensorView& workspace, Poll* poll,
                        uintptr_t stream) {
  check_sizes("heights_adam_solve", arguments.y);
  const DeviceGuard guard(arguments.y);
  Workspace pieces("heights_adam_solve", workspace);
  if (arguments.y.dtype == DType::f64) {
    run<double>(arguments, &pieces, poll, stream_of(stream));
  } else {
    run<float>(arguments, &pieces, poll, stream_of(stream));
  }
}

}  // namespace otcuda::cuda
