// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.h"
#include "cuda/source_samples.h"

namespace otcuda::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kDraw =
    4;  // dimensions of a sample that a thread draws, and numbers of a Philox block

__device__ __forceinline__ uint64_t stream_of_samples(const SampleSequence& sequence) {
  return sequence.stream + (sequence.base == nullptr ? 0 : uint64_t(*sequence.base));
}

// Block `first / 4 + t` of the sequence, cut to the numbers first .. first + count - 1.
template <class T>
__global__ void __launch_bounds__(kThreads)
    source_samples_rows_kernel(SampleSequence sequence, uint64_t first, int64_t count,
                               T* __restrict__ out) {
  const int64_t t = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const PhiloxBlock bits =
      philox(sequence.seed, stream_of_samples(sequence), first / kDraw + uint64_t(t));
#pragma unroll
  for (int w = 0; w < kDraw; ++w) {
    const int64_t k = t * kDraw + w - int64_t(first % kDraw);
    if (k >= 0 && k < count) out[k] = T(source_sample_from_bits(sequence.source, bits.word[w]));
  }
}

// A thread draws four dimensions of one sample; neighbours are samples, so that writes are
// coalesced.
__global__ void __launch_bounds__(kPanelRows)
    source_samples_panels_kernel(SampleSequence sequence, int64_t rows, int D,
                                 float* __restrict__ panels) {
  const int r = int(threadIdx.x);
  const int64_t row = int64_t(blockIdx.x) * kPanelRows + r;
  const int d0 = int(blockIdx.y) * kDraw;
  float* out = panels + (int64_t(blockIdx.x) * D + d0) * kPanelRows + panel_place(r);
  const uint64_t first = (sequence.offset + uint64_t(row)) * uint64_t(D) + uint64_t(d0);
  const uint64_t stream = stream_of_samples(sequence);
  PhiloxBlock bits = philox(sequence.seed, stream, first / kDraw);
#pragma unroll
  for (int w = 0; w < kDraw; ++w) {
    const uint64_t k = first + uint64_t(w);
    if (w > 0 && k % kDraw == 0) bits = philox(sequence.seed, stream, k / kDraw);
    const int word = int(k % kDraw);
    const uint32_t number = word < 2 ? (word == 0 ? bits.word[0] : bits.word[1])
                                     : (word == 2 ? bits.word[2] : bits.word[3]);
    if (d0 + w >= D) break;
    out[w * kPanelRows] = row < rows ? source_sample_from_bits(sequence.source, number) : 0.0f;
  }
}

template <class T>
void launch_rows(const SampleSequence& sequence, int64_t B, int64_t D, T* out,
                 cudaStream_t stream) {
  if (B * D == 0) return;
  const uint64_t first = sequence.offset * uint64_t(D);
  const int64_t blocks = ceil_div(int64_t(first % kDraw) + B * D, kDraw);
  OTCUDA_LAUNCH((source_samples_rows_kernel<T>), dim3{unsigned(ceil_div(blocks, kThreads))},
                dim3{kThreads}, 0, stream, sequence, first, B * D, out);
  check_launch("source_samples");
}

}  // namespace

void draw_rows(const SampleSequence& sequence, int64_t B, int64_t D, double* out,
               cudaStream_t stream) {
  launch_rows(sequence, B, D, out, stream);
}

void draw_panels(const SampleSequence& sequence, const Panels& out, cudaStream_t stream) {
  if (out.rows * out.D == 0) return;
  const dim3 grid{unsigned(out.panels()), unsigned(ceil_div(out.D, kDraw)), 1};
  OTCUDA_LAUNCH(source_samples_panels_kernel, grid, dim3{kPanelRows}, 0, stream, sequence, out.rows,
                int(out.D), out.data);
  check_launch("source_samples");
}

void source_samples(const SampleSequence& sequence, const TensorView& out, uintptr_t stream) {
  const DeviceGuard guard(out);
  if (out.dtype == DType::f64) {
    launch_rows(sequence, out.shape[0], out.shape[1], out.write<double>(), stream_of(stream));
  } else {
    launch_rows(sequence, out.shape[0], out.shape[1], out.write<float>(), stream_of(stream));
  }
}

}  // namespace otcuda::cuda
