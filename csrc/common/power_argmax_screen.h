// SPDX-License-Identifier: Apache-2.0
// The certificate of the bfloat16 screen: how far a sum of the tensor cores lies from the chain of
// common/power_argmax.h at most.
//
//   x = x' + dx, y = y' + dy, primes rounded to bfloat16; chain s, screen t = <x', y'> + h
//   |<x, y> - <x', y'>| <= |dx| |y| + |x'| |dy|
//   |t - exact|         <= steps 2^-17 (|x'| |y'| + |h|), steps = ceil(D / 16)
//   |s - exact|         <= (D + 2) 2^-23 (|x| |y| + |h|)
//
// A step of the tensor cores adds 16 products to a sum. They are assumed to lose no more than 2^-22
// of the largest addend from each, and as much again at the end, in any direction: 18 2^-22 <
// 2^-17. One more step of 2^-17 pays for the arithmetic of the certificate, and 2^-120 for
// underflow.
#pragma once

#include "common/host_device.h"

namespace otcuda {

constexpr float kScreenStep = 0x1p-17f;  // what a step of the tensor cores may lose
constexpr float kScreenTiny = 0x1p-120f;
constexpr float kScreenMost = 1e37f;  // sums beyond may overflow on the way

// Norms rounded up, of a sample, or the largest of a group of targets; not finite where any is not.
struct ScreenNorms {
  float norm;  // |x|
  float rest;  // |dx|
  float height;
};

// To nearest, ties to even; NaN stays NaN, what is too large becomes infinite.
OTCUDA_HD uint16_t bfloat16_bits(float a) {
  const uint32_t bits = float_bits(a);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
OTCUDA_HD float bfloat16_value(uint16_t bits) { return bits_float(uint32_t{bits} << 16); }

// The root of a sum of squares of floats, not below it.
OTCUDA_HD float norm_above(double squares) {
  return squares > 0 ? static_cast<float>(exact_sqrt(squares)) * 1.000001f + 0x1p-140f
                     : static_cast<float>(squares);
}

// How far the screen may be off for any target of the group; infinite where nothing is promised.
OTCUDA_HD float screen_error(const ScreenNorms& x, const ScreenNorms& y, int D) {
  const float x_most = x.norm + x.rest, y_most = y.norm + y.rest;
  const float most = x_most * y_most + y.height;
  const float sums = float((D + 15) / 16 + 1) * kScreenStep + float(D + 2) * 0x1p-23f;
  const float error = x.rest * y.norm + x_most * y.rest + sums * most + kScreenTiny;
  return most < kScreenMost ? error * 1.0001f : bits_float(0x7f800000u);
}

}  // namespace otcuda
