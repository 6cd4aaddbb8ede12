// SPDX-License-Identifier: Apache-2.0
// The two layers of context_net, once for all levels: included after Lanes, which stands in an
// anonymous namespace.
//
// Lanes::Sums holds Lanes::n int32; madd multiplies n pairs of int16 weights by one pair and adds
// both products.
#pragma once

#include "cpu/context_net_kernels.h"

namespace otcuda::cpu {
namespace {

static_assert(kContextBlock % Lanes::n == 0, "a block is a whole number of vectors");
constexpr int kVectors = kContextBlock / Lanes::n;

inline __attribute__((always_inline)) void requantise(const ContextLayer& layer, int64_t at,
                                                      Lanes::Sums sums, int16_t* out) {
  sums = Lanes::max(sums, Lanes::shift_right(sums, layer.slope));
  sums = Lanes::add(sums, Lanes::load(layer.half + at));
  sums = Lanes::shift_right_each(sums, Lanes::load(layer.shift + at));
  sums = Lanes::min(Lanes::max(sums, Lanes::fill(-layer.limit)), Lanes::fill(layer.limit));
  Lanes::store_narrow(out, sums);
}

void dense(const ContextLayer& layer, const int16_t* const* rows, int64_t n, int16_t* out,
           int64_t stride) {
  const int64_t block = layer.n_taps * layer.pairs * kContextBlock * 2;
  for (int64_t b = 0; b < layer.blocks; ++b) {
    for (int64_t p = 0; p < n; p += kContextPositions) {
      Lanes::Sums sums[kContextPositions][kVectors];
      for (int v = 0; v < kVectors; ++v) {
        const Lanes::Sums bias = Lanes::load(layer.bias + b * kContextBlock + v * Lanes::n);
        for (int q = 0; q < kContextPositions; ++q) sums[q][v] = bias;
      }
      const int16_t* weights = layer.weights + b * block;
      for (int64_t t = 0; t < layer.n_taps; ++t) {
        const int16_t* x[kContextPositions];
        for (int q = 0; q < kContextPositions; ++q) x[q] = rows[p + q] + layer.taps[t];
        for (int64_t k = 0; k < layer.pairs; ++k, weights += kContextBlock * 2) {
          Lanes::Pairs pair[kContextPositions];
          for (int q = 0; q < kContextPositions; ++q) pair[q] = Lanes::fill_pair(x[q] + 2 * k);
          for (int v = 0; v < kVectors; ++v) {
            const Lanes::Pairs w = Lanes::load_pairs(weights + v * Lanes::n * 2);
            for (int q = 0; q < kContextPositions; ++q) {
              sums[q][v] = Lanes::add(sums[q][v], Lanes::madd(w, pair[q]));
            }
          }
        }
      }
      for (int q = 0; q < kContextPositions; ++q) {
        for (int v = 0; v < kVectors; ++v) {
          const int64_t at = b * kContextBlock + v * Lanes::n;
          requantise(layer, at, sums[q][v], out + (p + q) * stride + at);
        }
      }
    }
  }
}

void sparse(const ContextLayer& layer, const ContextSpan* spans, int64_t n, int32_t* sums,
            int16_t* out) {
  const int64_t block = layer.n_taps * layer.pairs * kContextBlock * 2;
  for (int64_t b = 0; b < layer.blocks; ++b) {
    Lanes::Sums sum[kVectors];
    for (int v = 0; v < kVectors; ++v)
      sum[v] = Lanes::load(sums + b * kContextBlock + v * Lanes::n);
    for (int64_t s = 0; s < n; ++s) {
      const int16_t* tap = layer.weights + b * block + spans[s].weights;
      for (const ContextEntry* e = spans[s].begin; e != spans[s].end; ++e) {
        const Lanes::Pairs pair = Lanes::fill_pair(&e->values);
        for (int v = 0; v < kVectors; ++v) {
          const Lanes::Pairs w = Lanes::load_pairs(tap + e->offset + v * Lanes::n * 2);
          sum[v] = Lanes::add(sum[v], Lanes::madd(w, pair));
        }
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = b * kContextBlock + v * Lanes::n;
      Lanes::store(sums + at, sum[v]);
      requantise(layer, at, sum[v], out + at);
    }
  }
}

}  // namespace
}  // namespace otcuda::cpu
