// SPDX-License-Identifier: Apache-2.0
// The kernels of net, once for all levels: included after Lanes, which stands in an anonymous
// namespace. The order of every operation is that of csrc/common/net.h.
//
// Lanes: n floats a vector; `rows` rows of products are in registers at a time.
#pragma once

#include "common/net.h"
#include "cpu/net_kernels.h"

namespace otcuda::cpu {
namespace {

using Vector = Lanes::Vector;

static_assert(kNetBlock % Lanes::n == 0, "a block is a whole number of vectors");
constexpr int kVectors = kNetBlock / Lanes::n;

inline __attribute__((always_inline)) Vector leaky(Vector v) {
  return Lanes::max(v, Lanes::mul(v, Lanes::fill(kNetSlope)));
}

template <int kRows>
inline __attribute__((always_inline)) void products_of(const NetProducts& layer, const float* x,
                                                       int64_t x_stride, float* out,
                                                       int64_t out_stride) {
  Vector sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int q = 0; q < kRows; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[q][v] = Lanes::fill(0.0f);
  }
  const float* weights = layer.weights;
  for (int64_t t = 0; t < layer.n_taps; ++t) {
    const float* row = x + layer.taps[t];
    for (int64_t c = 0; c < layer.inputs; ++c, weights += kNetBlock) {
      Vector w[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) w[v] = Lanes::load(weights + v * Lanes::n);
#pragma GCC unroll 16
      for (int q = 0; q < kRows; ++q) {
        const Vector value = Lanes::fill(row[q * x_stride + c]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sums[q][v] = Lanes::fma(value, w[v], sums[q][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int q = 0; q < kRows; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Vector sum = sums[q][v];
      if (layer.bias != nullptr) sum = Lanes::add(sum, Lanes::load(layer.bias + v * Lanes::n));
      Lanes::store(out + q * out_stride + v * Lanes::n, sum);
    }
  }
}

void products(const NetProducts& layer, const NetRows& rows) {
  int64_t r = 0;
  while (r < rows.n && rows.n >= Lanes::rows) {
    if (r + Lanes::rows > rows.n) r = rows.n - Lanes::rows;  // some rows once more: same numbers
    products_of<Lanes::rows>(layer, rows.x + r * rows.x_stride, rows.x_stride,
                             rows.out + r * rows.out_stride, rows.out_stride);
    r += Lanes::rows;
  }
  for (; r < rows.n; ++r) {
    products_of<1>(layer, rows.x + r * rows.x_stride, 0, rows.out + r * rows.out_stride, 0);
  }
}

inline __attribute__((always_inline)) void transform_input(const Vector* d, Vector* v) {
  const Vector four = Lanes::fill(4.0f), minus_four = Lanes::fill(-4.0f);
  const Vector minus_five = Lanes::fill(-5.0f), two = Lanes::fill(2.0f);
  const Vector a = Lanes::fma(minus_four, d[2], d[4]), b = Lanes::fma(minus_four, d[1], d[3]);
  const Vector e = Lanes::sub(d[4], d[2]), f = Lanes::sub(d[3], d[1]);
  v[0] = Lanes::fma(four, d[0], Lanes::fma(minus_five, d[2], d[4]));
  v[1] = Lanes::add(a, b);
  v[2] = Lanes::sub(a, b);
  v[3] = Lanes::fma(two, f, e);
  v[4] = Lanes::fma(Lanes::fill(-2.0f), f, e);
  v[5] = Lanes::fma(four, d[1], Lanes::fma(minus_five, d[3], d[5]));
}

inline __attribute__((always_inline)) void transform_output(const Vector* m, Vector* y) {
  const Vector s = Lanes::add(m[1], m[2]), d = Lanes::sub(m[1], m[2]);
  const Vector S = Lanes::add(m[3], m[4]), D = Lanes::sub(m[3], m[4]);
  y[0] = Lanes::add(Lanes::add(m[0], s), S);
  y[1] = Lanes::fma(Lanes::fill(2.0f), D, d);
  y[2] = Lanes::fma(Lanes::fill(4.0f), S, s);
  y[3] = Lanes::add(Lanes::fma(Lanes::fill(8.0f), D, d), m[5]);
}

void input(const NetWindow& at, const float* window, float* points) {
  for (int64_t c = 0; c < at.channels; c += Lanes::n) {
    Vector columns[kNetWindow][kNetWindow];  // [column][row]: columns are done first
    for (int64_t j = 0; j < kNetWindow; ++j) {
      Vector d[kNetWindow];
      for (int64_t i = 0; i < kNetWindow; ++i) {
        d[i] = Lanes::load(window + i * at.row + j * at.pixel + c);
      }
      transform_input(d, columns[j]);
    }
    for (int64_t i = 0; i < kNetWindow; ++i) {
      Vector d[kNetWindow], v[kNetWindow];
      for (int64_t j = 0; j < kNetWindow; ++j) d[j] = columns[j][i];
      transform_input(d, v);
      for (int64_t j = 0; j < kNetWindow; ++j) {
        Lanes::store(points + (i * kNetWindow + j) * at.point + c, v[j]);
      }
    }
  }
}

void output(const NetWindow& at, const NetFinish& finish, const float* points, const float* skip,
            float* tile) {
  for (int64_t c = 0; c < at.channels; c += Lanes::n) {
    Vector columns[kNetWindow][kNetTile];
    for (int64_t j = 0; j < kNetWindow; ++j) {
      Vector m[kNetWindow];
      for (int64_t i = 0; i < kNetWindow; ++i) {
        m[i] = Lanes::load(points + (i * kNetWindow + j) * at.point + c);
      }
      transform_output(m, columns[j]);
    }
    const Vector bias = Lanes::load(finish.bias + c);
    for (int64_t i = 0; i < kNetTile; ++i) {
      Vector m[kNetWindow], y[kNetTile];
      for (int64_t j = 0; j < kNetWindow; ++j) m[j] = columns[j][i];
      transform_output(m, y);
      for (int64_t j = 0; j < kNetTile; ++j) {
        const int64_t where = i * at.row + j * at.pixel + c;
        Vector value = Lanes::add(y[j], bias);
        if (finish.leaky_inside) value = leaky(value);
        if (skip != nullptr) value = Lanes::add(Lanes::load(skip + where), value);
        if (finish.leaky_after) value = leaky(value);
        Lanes::store(tile + where, value);
      }
    }
  }
}

}  // namespace
}  // namespace otcuda::cpu
