// SPDX-License-Identifier: Apache-2.0
// The integer context model on the CPU. Contract: csrc/common/context_net.h.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "common/alloc.h"
#include "common/context_net.h"
#include "common/poll.h"
#include "common/tensor_view.h"
#include "cpu/context_net_kernels.h"

namespace otcuda::cpu {

// A layer that owns its packed weights.
struct ContextWeights {
  Buffer<int16_t> weights;
  Buffer<int32_t> bias, half, shift;
  int64_t blocks = 0, n_taps = 0, pairs = 0, outputs = 0;

  int64_t width() const { return blocks * kContextBlock; }
  ContextLayer layer(const int64_t* taps, int32_t slope, int32_t limit) const {
    return {weights.data(), bias.data(), half.data(), shift.data(), taps,
            blocks,         n_taps,      pairs,       slope,        limit};
  }
};

// The 64 tables: cumulative frequencies in the order of columns, and what a symbol costs.
struct ContextTables {
  int precision = 0;
  std::array<std::array<uint32_t, kContextColumns + 1>, kContextScales> cumulative{};
  std::array<std::array<uint32_t, kContextColumns>, kContextScales> length{};  // in 2^-16 bits
  std::array<int, kContextScales> radius{};

  int64_t bits_q16(int symbol, int scale_index) const;
};

struct ContextSizes {
  std::vector<int> edges;  // 0, first channel of the second group, ..., M
  int H = 0;
  int copies = 1;  // of the first group among the inputs, each coarser than the one before

  int M() const { return edges.back(); }
  int groups() const { return static_cast<int>(edges.size()) - 1; }
  int inputs() const { return M() + copies * edges[1] + 2; }
  int seen_by_mix() const { return edges[edges.size() - 2]; }  // channels that a later group sees
};

// Weights and tables, checked and packed. Names and shapes of the arrays:
// otcuda/codec/integer_context.py.
class ContextNet {
 public:
  using Arrays = std::function<TensorView(const std::string& name)>;
  explicit ContextNet(const Arrays& arrays);

  ContextSizes sizes;
  ContextWeights first, deep;  // first: 17 taps, the near and the far layer share the middle one
  std::vector<ContextWeights> mix, out;
  Buffer<int16_t> offset;  // [5, M]
  int mean_bits = kContextLeastMeanBits;
  std::array<int, kContextScales> centroid{};

  int symbol_limit() const { return context_symbol_limit(mean_bits); }
  ContextTables tables;
};

// One picture: the grid, its step and the channels that are coded. `off` is null or [M], not 0:
// switched off.
struct ContextPicture {
  int64_t h, w;
  int k;
  const uint8_t* off;
};

// What an encoder chooses: symbols of u = y / D, and what follows from them. All [M, h, w].
struct ContextChoice {
  int16_t* symbols;
  int16_t* values;  // in units of 2^-mean_bits of the step
  uint8_t* scale_index;
};

// Symbols of u [M, h, w], finite: the nearest to the mean's grid, or, if `conditional`, the one of
// nearest, one towards zero and zero with the least (u - value)^2 + multiplier bits. Returns the
// bits of all symbols.
double context_quantise(const ContextNet& net, const ContextPicture& picture, const float* u,
                        bool conditional, double multiplier, const ContextChoice& choice,
                        Poll& poll);

// Values, scale indices and bits of given symbols, |s| <= net.symbol_limit(); those of channels
// that are off are ignored.
double context_measure(const ContextNet& net, const ContextPicture& picture, const int16_t* symbols,
                       int16_t* values, uint8_t* scale_index, Poll& poll);

Vector<uint8_t> context_encode(const ContextNet& net, const ContextPicture& picture,
                               const int16_t* symbols, Poll& poll);

// Throws CorruptDataError where the bytes are none that context_encode wrote, as far as that can be
// seen.
void context_decode(const ContextNet& net, const ContextPicture& picture, const uint8_t* bytes,
                    int64_t size, int16_t* symbols, int16_t* values, Poll& poll);

}  // namespace otcuda::cpu
