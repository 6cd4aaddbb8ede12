// SPDX-License-Identifier: Apache-2.0
#include "cpu/source_samples.h"

#include <algorithm>

#include "common/backend_info.h"
#include "common/simd.h"
#include "common/threads.h"
#include "cpu/source_samples_kernel.h"

namespace otcuda::cpu {
namespace {

constexpr double kNumberNanoseconds = 5.0;

SampleKernel kernel() {
  switch (simd_level()) {
#if OTCUDA_X86_LEVELS
    case SimdLevel::avx512:
      return source_samples_avx512;
    case SimdLevel::avx2:
      return source_samples_avx2;
#endif
    default:
      return source_samples_portable;
  }
}

NumberKernel number_kernel() {
  switch (simd_level()) {
#if OTCUDA_X86_LEVELS
    case SimdLevel::avx512:
      return source_numbers_avx512;
    case SimdLevel::avx2:
      return source_numbers_avx2;
#endif
    default:
      return source_numbers_portable;
  }
}

template <class T>
void fill(const SampleSequence& sequence, uint64_t first, int64_t count, T* out) {
  if (count <= 0) return;
  count_backend_path(BackendPath::source_samples_cpu, count);
  const SampleKernel level = kernel();
  // Chunks begin where a Philox block does; the first and the last are cut to what was asked for.
  const uint64_t first_block = first / 4;
  const int64_t skip = int64_t(first % 4), end = skip + count;
  const auto chunks = [&](int64_t begin_chunk, int64_t end_chunk) {
    alignas(64) float numbers[kSampleChunk];
    for (int64_t chunk = begin_chunk; chunk < end_chunk; ++chunk) {
      level(sequence.source, sequence.seed, sequence.stream,
            first_block + uint64_t(chunk) * kSampleBlocks, numbers);
      const int64_t origin = chunk * kSampleChunk;
      for (int64_t k = std::max(origin, skip); k < std::min(end, origin + kSampleChunk); ++k) {
        out[k - skip] = T(numbers[k - origin]);
      }
    }
  };
  const int64_t n = (end + kSampleChunk - 1) / kSampleChunk;
  parallel_for(n, 64, chunks, nullptr, threads_for(kNumberNanoseconds * double(count)));
}

}  // namespace

void source_numbers(SourceKind source, const uint32_t* bits, int64_t count, float* out) {
  const NumberKernel level = number_kernel();
  alignas(64) uint32_t words[kSampleChunk];
  alignas(64) float numbers[kSampleChunk];
  for (int64_t begin = 0; begin < count; begin += kSampleChunk) {
    const int64_t n = std::min<int64_t>(kSampleChunk, count - begin);
    std::copy(bits + begin, bits + begin + n, words);
    std::fill(words + n, words + kSampleChunk, 0u);
    level(source, words, numbers);
    std::copy(numbers, numbers + n, out + begin);
  }
}

void source_samples(const SampleSequence& sequence, uint64_t first, int64_t count, float* out) {
  fill(sequence, first, count, out);
}

void source_samples(const SampleSequence& sequence, uint64_t first, int64_t count, double* out) {
  fill(sequence, first, count, out);
}

}  // namespace otcuda::cpu
