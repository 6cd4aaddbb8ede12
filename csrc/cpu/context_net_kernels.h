// SPDX-License-Identifier: Apache-2.0
// What the levels of context_net implement: two layers of int16 pairs into int32 sums, requantised.
//
// Included by the files of the levels, so: no std header but <cstdint>, no inline function that is
// not static.
#pragma once

#include <cstdint>

namespace otcuda::cpu {

constexpr int kContextBlock = 32;  // outputs are padded to so many
// Positions of a dense layer in registers at a time; lists are padded to a multiple.
constexpr int kContextPositions = 3;

// Weights [block][tap][pair of inputs][output][2] int16: a pair of inputs times a pair of weights
// is one multiply-add into int32. The other arrays are [blocks * 32]; padding is zero.
struct ContextLayer {
  const int16_t* weights;
  const int32_t* bias;
  const int32_t* half;  // 2^(shift-1), or 0
  const int32_t* shift;
  const int64_t* taps;  // where tap t of a row begins, from the row's pointer; dense layers only
  int64_t blocks, n_taps, pairs;
  int32_t slope;  // of the leaky ReLU, as a shift; 0: none
  int32_t limit;
};

// A pair of inputs of which one is not zero.
struct ContextEntry {
  int32_t offset;  // of its weights within a tap
  int32_t values;  // two int16
};

// The pairs of one source position, seen through one tap.
struct ContextSpan {
  const ContextEntry* begin;
  const ContextEntry* end;
  int64_t weights;  // offset of the tap within a block
};

struct ContextKernels {
  // out[p * stride ...] = requantised layer of rows[p], p < n, a multiple of kContextPositions.
  void (*dense)(const ContextLayer& layer, const int16_t* const* rows, int64_t n, int16_t* out,
                int64_t stride);
  // sums += the spans; out = requantised sums. Without bias: the sums began with it.
  void (*sparse)(const ContextLayer& layer, const ContextSpan* spans, int64_t n, int32_t* sums,
                 int16_t* out);
};

extern const ContextKernels context_kernels_portable;
extern const ContextKernels context_kernels_avx2;
extern const ContextKernels context_kernels_avx512;

}  // namespace otcuda::cpu
