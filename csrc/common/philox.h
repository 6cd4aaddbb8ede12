// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as
// 1, 2, 3, SC 2011), with uniforms and normals made of integer steps, fma, one division and one
// square root.
//
// A number is a function of (seed, stream, position): any thread, block or device draws any part of
// the sequence, and host, device and every instruction set give the same bits. No libm, no standard
// header.
#pragma once

#include "common/host_device.h"

namespace otcuda {

struct PhiloxBlock {
  uint32_t word[4];
};

// Ten rounds over the 128-bit counter (stream, position) with the 64-bit key `seed`.
OTCUDA_HD PhiloxBlock philox(uint64_t seed, uint64_t stream, uint64_t position) {
  uint32_t c0 = uint32_t(position), c1 = uint32_t(position >> 32);
  uint32_t c2 = uint32_t(stream), c3 = uint32_t(stream >> 32);
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0;
    const uint64_t p1 = uint64_t(0xCD9E8D57u) * c2;
    c0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
    c1 = uint32_t(p1);
    c2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c3 = uint32_t(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Uniform in (0, 1), symmetric about 1/2, a multiple of 2^-24: the ends cannot come up.
OTCUDA_HD float uniform_from_bits(uint32_t bits) {
  return exact_fma(float(int32_t(bits >> 9)), 0x1p-23f, 0x1p-24f);
}

// Natural logarithm of a positive normal number, within 1 ulp (polynomial of Cephes logf).
OTCUDA_HD float log_positive(float a) {
  const int32_t above = int32_t(float_bits(a)) - 0x3F3504F3;  // exponent counted from sqrt(1/2)
  const float e = float(above >> 23);
  const float f = bits_float(uint32_t((above & 0x007FFFFF) + 0x3F3504F3)) - 1.0f;
  float p = 7.0376836292e-2f;
  p = exact_fma(p, f, -1.1514610310e-1f);
  p = exact_fma(p, f, 1.1676998740e-1f);
  p = exact_fma(p, f, -1.2420140846e-1f);
  p = exact_fma(p, f, 1.4249322787e-1f);
  p = exact_fma(p, f, -1.6668057665e-1f);
  p = exact_fma(p, f, 2.0000714765e-1f);
  p = exact_fma(p, f, -2.4999993993e-1f);
  p = exact_fma(p, f, 3.3333331174e-1f);
  const float f2 = f * f;
  float tail = p * f * f2;
  tail = exact_fma(e, -2.12194440e-4f, tail);
  tail = exact_fma(f2, -0.5f, tail);
  return exact_fma(e, 0.693359375f, f + tail);
}

// Standard normal by inversion: 31 bits of tail probability and one of sign, so |z| < 6.24.
// Wichura, Algorithm AS 241 (PPND7), Applied Statistics 37 (1988): relative error about 1e-7.
OTCUDA_HD float normal_from_bits(uint32_t bits) {
  const int32_t m = int32_t(bits & 0x7FFFFFFFu);
  const float p = exact_fma(float(m), 0x1p-32f, 0x1p-33f);  // tail probability, in (0, 1/2)
  const float q =
      exact_fma(float(0x7FFFFFFF - m), 0x1p-32f, 0x1p-33f);  // 1/2 - p, without cancellation
  const bool central = q <= 0.425f;

  const float r = exact_fma(-q, q, 0.180625f);
  float up = exact_fma(5.9109374720e+01f, r, 1.5929113202e+02f);
  up = exact_fma(up, r, 5.0434271938e+01f);
  up = exact_fma(up, r, 3.3871327179e+00f);
  float down = exact_fma(6.7187563600e+01f, r, 7.8757757664e+01f);
  down = exact_fma(down, r, 1.7895169469e+01f);
  down = exact_fma(down, r, 1.0f);

  const float t = exact_sqrt(-log_positive(p)) - 1.6f;
  float tail_up = exact_fma(1.7023821103e-01f, t, 1.3067284816e+00f);
  tail_up = exact_fma(tail_up, t, 2.7568153900e+00f);
  tail_up = exact_fma(tail_up, t, 1.4234372777e+00f);
  float tail_down = exact_fma(1.2021132975e-01f, t, 7.3700164250e-01f);
  tail_down = exact_fma(tail_down, t, 1.0f);

  const float size = exact_divide(central ? up * q : tail_up, central ? down : tail_down);
  return bits_float(float_bits(size) | (bits & 0x80000000u));
}

}  // namespace otcuda
