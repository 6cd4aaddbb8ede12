// SPDX-License-Identifier: Apache-2.0
// context_net: mean and scale of every symbol of a latent grid, in integers; coding of the symbols.
//
// A five-phase causal convolution over the positions (i, j) of a grid [M, h, w]. Between the bytes
// and the symbols there is no float, no libm and no sum whose order matters: the same symbols on
// every machine, instruction set and number of threads.
//
//   phase 0  i % 4 = 0, j % 4 = 0        phase 3  i, j both odd
//   phase 1  i % 4 = 2, j % 4 = 2        phase 4  i + j odd
//   phase 2  the other even i, even j
//
// Order of the stream: phases; in a phase the channel groups; in a group the positions, row by row;
// at a position the channels. A symbol s has a mean mu and a scale index t, made of the symbols
// before it, and stands for
//
//   value = 2^b s - sgn(s) c_t + mu      in units of 2^-b of the quantiser step D = 2^(3 + k / 32)
//
// where a model says b, 4 to 6, and c_t, how far the mean of an interval lies below its middle.
// What the network sees of it is value16 = (value + 2^(b-5)) >> (b - 4), or value if b = 4.
//
// The network sees planes of int8, zero outside the picture and where a position is not known yet:
//
//   x       M planes clip(value16); the first group again, C times: clip(coarse(value16, n)) for
//           n = 1 .. C; 16 where known; clip(k - 160) everywhere in the picture
//   a       = act(near * x + far * x)           3 x 3, and 3 x 3 of dilation 4; one bias and shift
//   f       = act(deep * a)                     3 x 3
//   m_g     = act(mix_g [f, clip(value16) of the channels of earlier groups])          1 x 1
//   mu, o   = out(out_g m_g)                    1 x 1; the means of the group, then its scales
//   t       = min(max((o + offset[phase, channel] - 3 k + 8) >> 4, 0), 63)
//
// clang-format off
//   clip(v)      = min(max(v, -127), 127)
//   coarse(v, n) = (v + 2^(2n-1)) >> 2n         values that a fine step makes large still count
//   act(v)       = clip(round(max(v, v >> 3), shift))                     leaky, slope 1/8
//   out(v)       = min(max(round(v, shift), -8191), 8191)
//   round(v, n)  = (v + 2^(n-1)) >> n, or v if n = 0; shifts of negatives are arithmetic
// clang-format on
//
// v, bias + sum of weight x input, is an int32. Loading a model checks for each output that
// |bias| + 127 sum |weight| + 2^(shift-1) < 2^31: no order of adding can overflow.
//
// Coding. Table t holds 2 R + 2 frequencies >= 1, R <= 15, that sum to 2^P, 12 <= P <= 16: those of
// 0, 1, -1, 2, -2 ... R, -R, escape, in this order. A symbol with |s| <= R is one step of range64
// (common/range64.h). Any other is an escape, a bit (1: negative) and v = |s| - R - 1 in Exp-Golomb
// code of order n = max(0, t / 6 - 5): v >> n in order 0, then the low n bits.
// |s| < 1536 / 2^(b-4).
//
// A channel that is switched off has symbols 0, values 0, and leaves no trace in the stream.
//
// For a stranger: docs/format.md. Second implementation: python_tests/decoders/context_net.py.
#pragma once

#include <cstdint>

namespace otcuda {

constexpr int kContextPhases = 5;
constexpr int kContextScales = 64;
constexpr int kContextColumns = 32;  // 31 symbols and the escape
constexpr int kContextEscape = kContextColumns - 1;
constexpr int kContextInputLimit = 127;
constexpr int kContextOutputLimit = 8191;
constexpr int kContextLeastMeanBits = 4;
constexpr int kContextMostMeanBits = 6;
constexpr int kContextSlope = 3;
constexpr int kContextSeen = 16;
constexpr int kContextStepCentre = 160;
constexpr int kContextFar = 4;  // dilation
constexpr int kContextMostCopies = 6;

constexpr int context_clip(int v, int limit) { return v < -limit ? -limit : v > limit ? limit : v; }

// A value in sixteenths of a step, as the network sees it.
constexpr int context_sixteenths(int value, int mean_bits) {
  const int more = mean_bits - kContextLeastMeanBits;
  return more == 0 ? value : (value + (1 << (more - 1))) >> more;
}

// The largest magnitude of a symbol: 2^b x limit + 8191 fits in int16.
constexpr int context_symbol_limit(int mean_bits) {
  return (1536 >> (mean_bits - kContextLeastMeanBits)) - 1;
}

constexpr int context_value(int symbol, int mean, int centroid, int mean_bits) {
  const int sign = (symbol > 0) - (symbol < 0);
  return symbol * (1 << mean_bits) - sign * centroid + mean;
}

constexpr int context_coarse(int v, int n) { return (v + (1 << (2 * n - 1))) >> (2 * n); }

constexpr int context_phase(int64_t i, int64_t j) {
  if (((i + j) & 1) != 0) return 4;
  if ((i & 1) != 0) return 3;
  if (((i ^ j) & 2) != 0) return 2;
  return (i & 2) != 0 ? 1 : 0;
}

constexpr int context_scale_index(int output, int offset, int k) {
  const int t = (output + offset - 3 * k + 8) >> 4;
  return t < 0 ? 0 : t > kContextScales - 1 ? kContextScales - 1 : t;
}

// Column of a symbol in its table: 0, 1, -1, 2, -2 ...
constexpr int context_column(int symbol) { return symbol > 0 ? 2 * symbol - 1 : -2 * symbol; }
constexpr int context_symbol(int column) {
  return (column & 1) != 0 ? (column + 1) / 2 : -column / 2;
}

constexpr int context_escape_order(int scale_index) {
  return scale_index < 36 ? 0 : scale_index / 6 - 5;
}

}  // namespace otcuda
