// SPDX-License-Identifier: Apache-2.0
// rans32 decoded by a tree in registers. The 32 states of a block are two vectors of 16-bit halves.
// GCC 12 takes the undefined operands in its own header for a fault of ours.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "cpu/rans32_tree.h"

namespace otcuda::cpu {
namespace {

constexpr int kLanes = 32;

struct Halves {
  __m512i high, low;
};

Halves load_states(const uint32_t* state) {
  alignas(64) uint16_t high[kLanes], low[kLanes];
  for (int k = 0; k < kLanes; ++k) {
    high[k] = static_cast<uint16_t>(state[k] >> 16);
    low[k] = static_cast<uint16_t>(state[k]);
  }
  return {_mm512_load_si512(high), _mm512_load_si512(low)};
}

void store_states(const Halves& x, uint32_t* state) {
  alignas(64) uint16_t high[kLanes], low[kLanes];
  _mm512_store_si512(high, x.high);
  _mm512_store_si512(low, x.low);
  for (int k = 0; k < kLanes; ++k) state[k] = uint32_t{high[k]} << 16 | low[k];
}

// An array of 64, by the low six bits of each number.
struct Pair {
  __m512i first, second;
  explicit Pair(const uint16_t* from)
      : first(_mm512_load_si512(from)), second(_mm512_load_si512(from + kLanes)) {}
  __m512i operator[](__m512i at) const { return _mm512_permutex2var_epi16(first, at, second); }
};

// The sign of slot - threshold, shifted into the path: one instruction less a level than a mask,
// and half its latency.
__attribute__((always_inline)) inline __m512i walk(const __m512i* level, __m512i slot) {
  __m512i path = _mm512_srli_epi16(_mm512_sub_epi16(slot, level[0]), 15);
#pragma GCC unroll 6
  for (int l = 1; l < kRansTreeLevels; ++l) {
    const __m512i threshold = _mm512_permutexvar_epi16(path, level[l]);
    path = _mm512_shldi_epi16(path, _mm512_sub_epi16(slot, threshold), 1);
  }
  return path;
}

template <int kRuns>
int64_t decode(const RansTree& tree, RansDecodeRun* runs) {
  const Pair frequencies(tree.frequency), starts(tree.start), symbols(tree.symbol);
  const int P = tree.precision;
  const __m128i shift = _mm_cvtsi32_si128(P), rest = _mm_cvtsi32_si128(16 - P);
  const __m512i last = _mm512_set1_epi16(static_cast<int16_t>((1 << P) - 1));
  const __m512i escape = tree.escape ? last : _mm512_set1_epi16(-1);  // no slot is that
  const __m512i first = _mm512_set1_epi32(tree.low), one = _mm512_set1_epi16(1);
  __m512i level[kRansTreeLevels];
  for (int l = 0; l < kRansTreeLevels; ++l) level[l] = _mm512_load_si512(tree.level[l]);
  Halves x[kRuns];
  RansDecodeRun run[kRuns];
  int64_t groups = runs[0].groups, g = 0;
  for (int j = 0; j < kRuns; ++j) {
    run[j] = runs[j];
    if (run[j].groups < groups) groups = run[j].groups;
    x[j] = load_states(run[j].state);
  }
  for (; g < groups; ++g) {
    bool roomy = true;
    for (int j = 0; j < kRuns; ++j) roomy &= run[j].end - run[j].words >= 2 * kLanes;
    if (!roomy) break;
#pragma GCC unroll 4
    for (int j = 0; j < kRuns; ++j) {
      const __m512i slot = _mm512_and_si512(x[j].low, last), path = walk(level, slot);
      const __m512i f = frequencies[path], symbol = symbols[path];
      run[j].escaped[g] = _mm512_cmpeq_epi16_mask(slot, escape);
      int32_t* const to = run[j].symbol + g * kLanes;
      const __m512i here = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(symbol));
      const __m512i there = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(symbol, 1));
      _mm512_storeu_si512(to, _mm512_add_epi32(here, first));
      _mm512_storeu_si512(to + 16, _mm512_add_epi32(there, first));
      // f (x >> P) + rank = (f 2^(16-P)) high + [f (low >> P) + rank]; the bracket is below 2^16.
      const __m512i part = _mm512_mullo_epi16(_mm512_srl_epi16(x[j].low, shift), f);
      const __m512i added = _mm512_add_epi16(part, _mm512_sub_epi16(slot, starts[path]));
      const __m512i wide = _mm512_sll_epi16(f, rest);
      const __m512i low = _mm512_add_epi16(_mm512_mullo_epi16(wide, x[j].high), added);
      __m512i high = _mm512_mulhi_epu16(wide, x[j].high);
      high = _mm512_mask_add_epi16(high, _mm512_cmplt_epu16_mask(low, added), high, one);
      const __mmask32 empty = _mm512_testn_epi16_mask(high, high);
      const __m512i words = _mm512_loadu_si512(run[j].words);
      x[j].high = _mm512_mask_mov_epi16(high, empty, low);
      x[j].low = _mm512_mask_expand_epi16(low, empty, words);
      run[j].words += 2 * __builtin_popcount(empty);
    }
  }
  for (int j = 0; j < kRuns; ++j) {
    runs[j].words = run[j].words;
    store_states(x[j], runs[j].state);
  }
  return g;
}

}  // namespace

int64_t rans32_decode_tree(const RansTree& tree, RansDecodeRun* runs, int count) {
  if (count == 1) return decode<1>(tree, runs);
  if (count == 2) return decode<2>(tree, runs);
  return count == 3 ? decode<3>(tree, runs) : decode<4>(tree, runs);
}

}  // namespace otcuda::cpu
