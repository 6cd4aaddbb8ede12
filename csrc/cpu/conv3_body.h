// SPDX-License-Identifier: Apache-2.0
// The kernels of conv3, once for all levels: included after net_body.h, whose lanes it uses.
#pragma once

#include "cpu/conv3_kernels.h"
#include "cpu/net_body.h"

namespace otcuda::cpu {
namespace {

inline __attribute__((always_inline)) void transform_kernel(const Vector* w, Vector* u) {
  const Vector sixth = Lanes::fill(-1.0f / 6), fine = Lanes::fill(1.0f / 24);
  const Vector four = Lanes::fill(4.0f), two = Lanes::fill(2.0f);
  const Vector even = Lanes::add(w[0], w[2]), wide = Lanes::fma(four, w[2], w[0]);
  u[0] = Lanes::mul(Lanes::fill(0.25f), w[0]);
  u[1] = Lanes::mul(sixth, Lanes::add(even, w[1]));
  u[2] = Lanes::mul(sixth, Lanes::sub(even, w[1]));
  u[3] = Lanes::mul(fine, Lanes::fma(two, w[1], wide));
  u[4] = Lanes::mul(fine, Lanes::fma(Lanes::fill(-2.0f), w[1], wide));
  u[5] = w[2];
}

inline __attribute__((always_inline)) void transform_kernel_adjoint(const Vector* u, Vector* w) {
  const Vector s = Lanes::add(u[1], u[2]), d = Lanes::sub(u[2], u[1]);
  const Vector S = Lanes::add(u[3], u[4]), D = Lanes::sub(u[3], u[4]);
  const Vector sixth = Lanes::fill(1.0f / 6);
  w[0] = Lanes::fma(Lanes::fill(0.25f), u[0],
                    Lanes::fma(Lanes::fill(1.0f / 24), S, Lanes::mul(Lanes::fill(-1.0f / 6), s)));
  w[1] = Lanes::fma(sixth, d, Lanes::mul(Lanes::fill(1.0f / 12), D));
  w[2] = Lanes::fma(sixth, Lanes::sub(S, s), u[5]);
}

// The adjoint of transform_output.
inline __attribute__((always_inline)) void transform_spread(const Vector* y, Vector* m) {
  const Vector even = Lanes::add(y[0], y[2]), odd = Lanes::add(y[1], y[3]);
  const Vector far_even = Lanes::fma(Lanes::fill(4.0f), y[2], y[0]);
  const Vector far_odd = Lanes::fma(Lanes::fill(4.0f), y[3], y[1]);
  const Vector two = Lanes::fill(2.0f);
  m[0] = y[0];
  m[1] = Lanes::add(even, odd);
  m[2] = Lanes::sub(even, odd);
  m[3] = Lanes::fma(two, far_odd, far_even);
  m[4] = Lanes::fma(Lanes::fill(-2.0f), far_odd, far_even);
  m[5] = y[3];
}

void kernel(const Conv3Taps& at, const float* taps, float* points) {
  for (int64_t c = 0; c < at.inputs; ++c) {
    for (int64_t v = 0; v < kNetBlock; v += Lanes::n) {
      Vector columns[3][kNetWindow];
      for (int64_t j = 0; j < 3; ++j) {
        Vector w[3];
        for (int64_t i = 0; i < 3; ++i) {
          w[i] = Lanes::load(taps + (3 * i + j) * at.tap + c * at.row + v);
        }
        transform_kernel(w, columns[j]);
      }
      for (int64_t i = 0; i < kNetWindow; ++i) {
        const Vector w[3] = {columns[0][i], columns[1][i], columns[2][i]};
        Vector u[kNetWindow];
        transform_kernel(w, u);
        for (int64_t j = 0; j < kNetWindow; ++j) {
          Lanes::store(points + (i * kNetWindow + j) * at.point + c * kNetBlock + v, u[j]);
        }
      }
    }
  }
}

void kernel_gradient(const Conv3Taps& at, const float* points, float* taps) {
  for (int64_t c = 0; c < at.inputs; ++c) {
    for (int64_t v = 0; v < kNetBlock; v += Lanes::n) {
      Vector rows[3][kNetWindow];
      for (int64_t j = 0; j < kNetWindow; ++j) {
        Vector u[kNetWindow], w[3];
        for (int64_t i = 0; i < kNetWindow; ++i) {
          u[i] = Lanes::load(points + (i * kNetWindow + j) * at.point + c * kNetBlock + v);
        }
        transform_kernel_adjoint(u, w);
        for (int64_t i = 0; i < 3; ++i) rows[i][j] = w[i];
      }
      for (int64_t i = 0; i < 3; ++i) {
        Vector w[3];
        transform_kernel_adjoint(rows[i], w);
        for (int64_t j = 0; j < 3; ++j) {
          Lanes::store(taps + (3 * i + j) * at.tap + c * at.row + v, w[j]);
        }
      }
    }
  }
}

void spread(const NetWindow& at, const float* tile, float* points) {
  for (int64_t c = 0; c < at.channels; c += Lanes::n) {
    Vector columns[kNetTile][kNetWindow];
    for (int64_t j = 0; j < kNetTile; ++j) {
      Vector y[kNetTile];
      for (int64_t i = 0; i < kNetTile; ++i) {
        y[i] = Lanes::load(tile + i * at.row + j * at.pixel + c);
      }
      transform_spread(y, columns[j]);
    }
    for (int64_t i = 0; i < kNetWindow; ++i) {
      Vector y[kNetTile], m[kNetWindow];
      for (int64_t j = 0; j < kNetTile; ++j) y[j] = columns[j][i];
      transform_spread(y, m);
      for (int64_t j = 0; j < kNetWindow; ++j) {
        Lanes::store(points + (i * kNetWindow + j) * at.point + c, m[j]);
      }
    }
  }
}

template <int kRows>
inline __attribute__((always_inline)) void outer_of(const Conv3Outer& product, const float* x,
                                                    float* out) {
  Vector sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int q = 0; q < kRows; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[q][v] = Lanes::fill(0.0f);
  }
  const float* m = product.m;
  for (int64_t t = 0; t < product.n; ++t, x += product.x_stride, m += product.m_stride) {
    Vector row[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) row[v] = Lanes::load(m + v * Lanes::n);
#pragma GCC unroll 16
    for (int q = 0; q < kRows; ++q) {
      const Vector value = Lanes::fill(x[q]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[q][v] = Lanes::fma(value, row[v], sums[q][v]);
    }
  }
#pragma GCC unroll 16
  for (int q = 0; q < kRows; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Lanes::store(out + q * kNetBlock + v * Lanes::n, sums[q][v]);
    }
  }
}

void outer(const Conv3Outer& product, float* out) {
  int64_t c = 0;
  for (; c + Lanes::rows <= product.channels; c += Lanes::rows) {
    outer_of<Lanes::rows>(product, product.x + c, out + c * kNetBlock);
  }
  for (; c + 2 <= product.channels; c += 2) {
    outer_of<2>(product, product.x + c, out + c * kNetBlock);
  }
  for (; c < product.channels; ++c) outer_of<1>(product, product.x + c, out + c * kNetBlock);
}

}  // namespace
}  // namespace otcuda::cpu
