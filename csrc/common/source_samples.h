// SPDX-License-Identifier: Apache-2.0
// source_samples: samples of the sources that transport starts from, by Philox.
//
//   out[b, d] = number (offset + b) * D + d of the sequence (seed, stream)
//   number k  = the transform of the source, of word k mod 4 of philox(seed, stream, k / 4)
//
//   normal        N(0, 1) by inversion, |z| < 6.24
//   uniform       (0, 1), multiples of 2^-24
//   gaussian_cdf  Phi of the number that `normal` has there: the paper's T~, noise through the
//   normal CDF onto
//                 the cube [0, 1]^D. In law the same as uniform; taken here from the tail
//                 probability that the normal is the inverse of, within 1 ulp of Phi
//
// Contract, the same for every backend:
//   shapes   out [B, D]; float32, or float64 holding the float32 number
//   bits     the same everywhere; any part of the sequence can be drawn alone
//
// Reference: otcuda/reference.py.
#pragma once

#include "common/host_device.h"
#include "common/philox.h"

namespace otcuda {

enum class SourceKind : int { normal, uniform, gaussian_cdf };

OTCUDA_HD float gaussian_cdf_from_bits(uint32_t bits) {
  const int32_t m = int32_t(bits & 0x7FFFFFFFu);
  const float p = exact_fma(float(m), 0x1p-32f, 0x1p-33f);
  const float q = exact_fma(float(0x7FFFFFFF - m), 0x1p-32f, 0x1p-33f);
  return (bits & 0x80000000u) != 0 ? p : 0.5f + q;
}

OTCUDA_HD float source_sample_from_bits(SourceKind source, uint32_t bits) {
  if (source == SourceKind::normal) return normal_from_bits(bits);
  return source == SourceKind::uniform ? uniform_from_bits(bits) : gaussian_cdf_from_bits(bits);
}

}  // namespace otcuda
