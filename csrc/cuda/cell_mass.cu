// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "common/cell_mass.h"
#include "cuda/cell_mass.h"
#include "cuda/device.h"

namespace otcuda::cuda {
namespace {

using Word = unsigned long long;  // CUDA's name for 64 bits in an atomic; sums wrap like int64

constexpr int kThreads = 512;
constexpr int64_t kSharedBytes = 48 << 10;
constexpr uint64_t kInfinityBits = uint64_t(0x7FF) << 52;

// The workspace of a call.
struct Scratch {
  Word* stray;     // first sample whose index is no cell; all ones: none
  Word* infinite;  // first sample whose weight is not finite
  Word* largest;   // bits of max |weights|: as integers they order as the numbers do
  Word* sums;      // [N], with weights only

  Scratch(Workspace* workspace, int64_t N, bool weighted) {
    stray = workspace->take<Word>(3);
    infinite = stray + 1;
    largest = stray + 2;
    sums = workspace->take<Word>(weighted ? N : 0);
  }
};

__device__ __forceinline__ bool is_cell(int64_t i, int64_t b, int64_t N, Word* stray) {
  if (i >= 0 && i < N) return true;
  if (i != -1) atomicMin(stray, Word(b));
  return false;
}

// Histogram of the block in shared memory, then one atomic a cell that met a sample.
__global__ void __launch_bounds__(kThreads)
    cell_mass_shared_counts_kernel(const int64_t* __restrict__ index, int64_t B, int N,
                                   Word* __restrict__ mass, Word* __restrict__ stray) {
  OTCUDA_DYNAMIC_SHARED(unsigned, local);
  for (int i = int(threadIdx.x); i < N; i += kThreads) local[i] = 0;
  __syncthreads();
  const int64_t step = int64_t(gridDim.x) * kThreads;
  for (int64_t b = int64_t(blockIdx.x) * kThreads + threadIdx.x; b < B; b += step) {
    const int64_t i = index[b];
    if (is_cell(i, b, N, stray)) atomicAdd(&local[i], 1u);
  }
  __syncthreads();
  for (int i = int(threadIdx.x); i < N; i += kThreads) {
    if (local[i] != 0) atomicAdd(&mass[i], Word(local[i]));
  }
}

__global__ void __launch_bounds__(kThreads)
    cell_mass_counts_kernel(const int64_t* __restrict__ index, int64_t B, int64_t N,
                            Word* __restrict__ mass, Word* __restrict__ stray) {
  const int64_t step = int64_t(gridDim.x) * kThreads;
  for (int64_t b = int64_t(blockIdx.x) * kThreads + threadIdx.x; b < B; b += step) {
    const int64_t i = index[b];
    if (is_cell(i, b, N, stray)) atomicAdd(&mass[i], Word(1));
  }
}

template <class Weight>
__global__ void __launch_bounds__(kThreads)
    cell_mass_largest_kernel(const Weight* __restrict__ weights, int64_t B,
                             Word* __restrict__ largest, Word* __restrict__ infinite) {
  const int64_t step = int64_t(gridDim.x) * kThreads;
  Word most = 0;
  for (int64_t b = int64_t(blockIdx.x) * kThreads + threadIdx.x; b < B; b += step) {
    const Word bits = double_bits(double(weights[b])) & ~(Word(1) << 63);
    if (bits < kInfinityBits) {
      most = max(most, bits);
    } else {
      atomicMin(infinite, Word(b));
    }
  }
#pragma unroll
  for (int d = 16; d > 0; d /= 2) most = max(most, __shfl_xor_sync(~0u, most, d));
  if (threadIdx.x % 32 == 0) atomicMax(largest, most);
}

// In shared memory first where all cells fit: few cells would queue up at a few addresses.
template <class Weight, bool shared>
__global__ void __launch_bounds__(kThreads)
    cell_mass_sums_kernel(const int64_t* __restrict__ index, const Weight* __restrict__ weights,
                          int64_t B, int64_t N, const Word* __restrict__ largest,
                          Word* __restrict__ sums, Word* __restrict__ stray) {
  OTCUDA_DYNAMIC_SHARED(Word, local);
  for (int64_t i = threadIdx.x; shared && i < N; i += kThreads) local[i] = 0;
  __syncthreads();
  const int k = cell_mass_scale(bits_double(*largest), B);
  const int64_t step = int64_t(gridDim.x) * kThreads;
  for (int64_t b = int64_t(blockIdx.x) * kThreads + threadIdx.x; b < B; b += step) {
    const int64_t i = index[b];
    const double weight = double(weights[b]);
    const bool finite = (double_bits(weight) & kInfinityBits) != kInfinityBits;
    if (!is_cell(i, b, N, stray) || !finite) continue;
    atomicAdd(shared ? &local[i] : &sums[i], Word(cell_mass_fixed(weight, k)));
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; shared && i < N; i += kThreads) {
    if (local[i] != 0) atomicAdd(&sums[i], local[i]);
  }
}

template <class Weight>
__global__ void __launch_bounds__(kThreads)
    cell_mass_values_kernel(const Word* __restrict__ sums, int64_t B, int64_t N,
                            const Word* __restrict__ largest, Weight* __restrict__ mass) {
  const int k = cell_mass_scale(bits_double(*largest), B);
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < N) mass[i] = Weight(cell_mass_value(int64_t(sums[i]), k));
}

// Blocks that keep the card busy without flushing more histograms than that takes.
dim3 grid_of(int64_t B) {
  const int64_t most = 2 * int64_t(processors());
  return dim3{unsigned(std::clamp<int64_t>(ceil_div(B, kThreads), 1, most))};
}

void clear(const Scratch& scratch, int64_t N, Word* sums, cudaStream_t stream) {
  check_cuda(cudaMemsetAsync(scratch.stray, 0xFF, 2 * sizeof(Word), stream), "cell_mass");
  check_cuda(cudaMemsetAsync(scratch.largest, 0, sizeof(Word), stream), "cell_mass");
  check_cuda(cudaMemsetAsync(sums, 0, size_t(N) * sizeof(Word), stream), "cell_mass");
}

template <class Weight, bool shared>
void launch_sums(const int64_t* index, const Weight* weights, int64_t B, int64_t N,
                 const Scratch& scratch, cudaStream_t stream) {
  const size_t bytes = shared ? size_t(N) * sizeof(Word) : 0;
  OTCUDA_LAUNCH((cell_mass_sums_kernel<Weight, shared>), grid_of(B), dim3{kThreads}, bytes, stream,
                index, weights, B, N, scratch.largest, scratch.sums, scratch.stray);
  check_launch("cell_mass");
}

template <class Weight>
void weighted(const int64_t* index, const Weight* weights, int64_t B, int64_t N,
              const Scratch& scratch, Weight* mass, cudaStream_t stream) {
  OTCUDA_LAUNCH((cell_mass_largest_kernel<Weight>), grid_of(B), dim3{kThreads}, 0, stream, weights,
                B, scratch.largest, scratch.infinite);
  check_launch("cell_mass");
  const bool shared = N * int64_t(sizeof(Word)) <= kSharedBytes;
  (shared ? launch_sums<Weight, true> : launch_sums<Weight, false>)(index, weights, B, N, scratch,
                                                                    stream);
  OTCUDA_LAUNCH((cell_mass_values_kernel<Weight>), dim3{unsigned(ceil_div(N, kThreads))},
                dim3{kThreads}, 0, stream, scratch.sums, std::max<int64_t>(B, 1), N,
                scratch.largest, mass);
  check_launch("cell_mass");
}

}  // namespace

int64_t cell_mass_workspace(int64_t N, bool weighted) {
  Workspace count;
  Scratch(&count, N, weighted);
  return count.used();
}

void cell_mass_counts(const TensorView& index, const TensorView& mass, const TensorView& workspace,
                      uintptr_t stream) {
  const int64_t B = index.shape[0], N = mass.shape[0];
  const DeviceGuard guard(index);
  Workspace pieces("cell_mass", workspace);
  const Scratch scratch(&pieces, N, false);
  Word* counts = mass.write<Word>();
  clear(scratch, N, counts, stream_of(stream));
  const int64_t bytes = N * int64_t(sizeof(unsigned));
  if (bytes <= kSharedBytes) {
    OTCUDA_LAUNCH(cell_mass_shared_counts_kernel, grid_of(B), dim3{kThreads}, size_t(bytes),
                  stream_of(stream), index.read<int64_t>(), B, int(N), counts, scratch.stray);
  } else {
    OTCUDA_LAUNCH(cell_mass_counts_kernel, grid_of(B), dim3{kThreads}, 0, stream_of(stream),
                  index.read<int64_t>(), B, N, counts, scratch.stray);
  }
  check_launch("cell_mass");
}

void cell_mass_sums(const TensorView& index, const TensorView& weights, const TensorView& mass,
                    const TensorView& workspace, uintptr_t stream) {
  const int64_t B = index.shape[0], N = mass.shape[0];
  const DeviceGuard guard(index);
  Workspace pieces("cell_mass", workspace);
  const Scratch scratch(&pieces, N, true);
  clear(scratch, N, scratch.sums, stream_of(stream));
  if (weights.dtype == DType::f64) {
    weighted(index.read<int64_t>(), weights.read<double>(), B, N, scratch, mass.write<double>(),
             stream_of(stream));
  } else {
    weighted(index.read<int64_t>(), weights.read<float>(), B, N, scratch, mass.write<float>(),
             stream_of(stream));
  }
}

}  // namespace otcuda::cuda
