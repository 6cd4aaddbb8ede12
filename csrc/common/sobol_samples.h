// SPDX-License-Identifier: Apache-2.0
// sobol_samples: samples of the named sources on scrambled Sobol points.
//
//   out[b, d]  = the transform of the source (source_samples.h), of word_d(n), n = offset + b
//   word_d(n)  = shift_d xor L_d (xor of v_d[k] over the set bits k of n xor n / 2)
//   v_d[k]     = direction numbers (Sobol 1967): those of kSobolPolynomials[d - 1]; v_0[k] =
//   2^(31-k) L_d        = digit r of L_d v is digit r of v, plus a random subset of the digits
//   before it subsets    = word r mod 4 of philox(seed, stream, 8 d + r / 4), its bits r .. 31
//   dropped shift_d    = word 0 of philox(seed, stream, 2^32 + d)
//
// Each point alone has the law of the source, and another (seed, stream) gives an independent set
// (random linear scramble and digital shift: Matousek, J. Complexity 14, 1998). Among themselves
// the first 2^m points are more even than independent ones: the samples in a cell vary less, ten
// times in two dimensions, a sixth in sixteen (docs/transport.md, 5).
//
// The transform of "normal" counts magnitudes down from the tail: a flip of digits that depends on
// the first alone, which leaves nets what they are.
//
// Contract, the same for every backend:
//   shapes   out [B, D] float32; 0 <= D <= kSobolDimensions; offset + B <= 2^32
//   bits     the same everywhere; any part of the sequence can be drawn alone
//
// Reference: python_tests/ops/test_sobol_samples.py. The table: tools/make_sobol.py.
#pragma once

#include "common/host_device.h"
#include "common/philox.h"
#include "common/source_samples.h"

namespace otcuda {

constexpr int kSobolDimensions = 32;
constexpr int kSobolBits = 32;

struct SobolPolynomial {
  int degree;
  uint32_t polynomial;  // over GF(2), x^degree and 1 included; primitive
  uint32_t first[7];    // m_1 .. m_degree: odd, m_k < 2^k
};

constexpr SobolPolynomial kSobolPolynomials[kSobolDimensions - 1] = {
    {1, 3, {1}},
    {2, 7, {1, 3}},
    {3, 11, {1, 1, 7}},
    {3, 13, {1, 1, 5}},
    {4, 19, {1, 1, 3, 7}},
    {4, 25, {1, 1, 5, 7}},
    {5, 37, {1, 3, 5, 1, 1}},
    {5, 41, {1, 3, 7, 5, 19}},
    {5, 47, {1, 1, 3, 11, 11}},
    {5, 55, {1, 3, 5, 11, 31}},
    {5, 59, {1, 3, 1, 3, 31}},
    {5, 61, {1, 3, 1, 1, 1}},
    {6, 67, {1, 3, 3, 11, 11, 41}},
    {6, 91, {1, 1, 5, 5, 17, 29}},
    {6, 97, {1, 3, 5, 11, 1, 13}},
    {6, 103, {1, 3, 3, 9, 3, 13}},
    {6, 109, {1, 3, 1, 9, 17, 27}},
    {6, 115, {1, 1, 1, 15, 21, 5}},
    {7, 131, {1, 1, 3, 3, 23, 41, 49}},
    {7, 137, {1, 3, 7, 5, 15, 59, 65}},
    {7, 143, {1, 3, 3, 7, 11, 3, 123}},
    {7, 145, {1, 3, 3, 15, 21, 47, 85}},
    {7, 157, {1, 3, 5, 9, 3, 49, 105}},
    {7, 167, {1, 3, 5, 5, 17, 11, 81}},
    {7, 171, {1, 3, 3, 11, 17, 45, 15}},
    {7, 185, {1, 1, 5, 7, 29, 53, 55}},
    {7, 191, {1, 1, 1, 1, 27, 61, 83}},
    {7, 193, {1, 1, 1, 13, 5, 33, 127}},
    {7, 203, {1, 3, 1, 15, 5, 5, 13}},
    {7, 211, {1, 1, 1, 7, 7, 11, 91}},
    {7, 213, {1, 3, 3, 3, 17, 51, 73}},
};

// Direction numbers of dimension d, of the bits 0, 1, .. of n.
inline void sobol_directions(int d, uint32_t v[kSobolBits]) {
  if (d == 0) {
    for (int k = 0; k < kSobolBits; ++k) v[k] = uint32_t(1) << (31 - k);
    return;
  }
  const SobolPolynomial& p = kSobolPolynomials[d - 1];
  for (int k = 0; k < kSobolBits; ++k) {
    if (k < p.degree) {
      v[k] = p.first[k] << (31 - k);
      continue;
    }
    v[k] = v[k - p.degree] ^ (v[k - p.degree] >> p.degree);
    for (int j = 1; j < p.degree; ++j) {
      if ((p.polynomial >> (p.degree - j) & 1) != 0) v[k] ^= v[k - j];
    }
  }
}

// L_d v_d[k], and the shift.
inline void sobol_scramble(uint64_t seed, uint64_t stream, int d, uint32_t v[kSobolBits],
                           uint32_t* shift) {
  uint32_t plain[kSobolBits];
  for (int k = 0; k < kSobolBits; ++k) {
    plain[k] = v[k];
    v[k] = 0;
  }
  for (int r = 0; r < kSobolBits; ++r) {
    const uint32_t word = philox(seed, stream, uint64_t(8 * d + r / 4)).word[r % 4];
    const uint32_t digit = uint32_t(1) << (31 - r), before = ~(digit | (digit - 1));
    const uint32_t row = (word & before) | digit;
    for (int k = 0; k < kSobolBits; ++k) {
      if ((__builtin_popcount(plain[k] & row) & 1) != 0) v[k] |= digit;
    }
  }
  *shift = philox(seed, stream, (uint64_t(1) << 32) + uint64_t(d)).word[0];
}

}  // namespace otcuda
