// SPDX-License-Identifier: Apache-2.0
#include "cpu/sobol_samples.h"

#include <algorithm>

#include "common/alloc.h"
#include "common/backend_info.h"
#include "common/threads.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kRows = 256;  // points of a task
constexpr double kNumberNanoseconds = 3.0;

// Words of the points [begin, end), row by row.
void words(const Buffer<uint32_t>& v, const Buffer<uint32_t>& shift, uint64_t begin, uint64_t end,
           int64_t D, uint32_t* out) {
  std::copy(shift.begin(), shift.end(), out);
  for (uint64_t gray = begin ^ (begin >> 1), k = 0; gray != 0; gray >>= 1, ++k) {
    if ((gray & 1) == 0) continue;
    for (int64_t d = 0; d < D; ++d) out[d] ^= v[int64_t(k) * D + d];
  }
  for (uint64_t n = begin + 1; n < end; ++n, out += D) {
    // The codes of neighbours differ in one bit.
    const uint32_t* const changed = v.data() + int64_t(__builtin_ctzll(n)) * D;
    for (int64_t d = 0; d < D; ++d) out[D + d] = out[d] ^ changed[d];
  }
}

}  // namespace

void sobol_samples(const SampleSequence& sequence, uint64_t first, int64_t B, int64_t D,
                   float* out) {
  if (B <= 0 || D <= 0) return;
  count_backend_path(BackendPath::source_samples_cpu, B * D);
  Buffer<uint32_t> v(kSobolBits * D), shift(D);
  for (int64_t d = 0; d < D; ++d) {
    uint32_t column[kSobolBits];
    sobol_directions(int(d), column);
    sobol_scramble(sequence.seed, sequence.stream, int(d), column, &shift[d]);
    for (int k = 0; k < kSobolBits; ++k) v[k * D + d] = column[k];
  }
  const auto rows = [&](int64_t begin_task, int64_t end_task) {
    Buffer<uint32_t> bits(kRows * D);
    for (int64_t task = begin_task; task < end_task; ++task) {
      const int64_t begin = task * kRows, end = std::min(B, begin + kRows);
      words(v, shift, first + uint64_t(begin), first + uint64_t(end), D, bits.data());
      source_numbers(sequence.source, bits.data(), (end - begin) * D, out + begin * D);
    }
  };
  const int64_t tasks = (B + kRows - 1) / kRows;
  parallel_for(tasks, 1, rows, nullptr, threads_for(kNumberNanoseconds * double(B) * double(D)));
}

}  // namespace otcuda::cpu
