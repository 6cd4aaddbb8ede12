// SPDX-License-Identifier: Apache-2.0
#include "cpu/top_cells_body.h"

namespace otcuda::cpu {
namespace {

struct Lanes {
  static constexpr int kLanes = 4, kVectors = 1, kTargets = 4, kHalfTargets = 1;
  struct Vector {
    float lane[kLanes];
  };

  static Vector fill(float a) { return {{a, a, a, a}}; }
  static Vector load(const float* from) { return {{from[0], from[1], from[2], from[3]}}; }
  static void store(float* to, const Vector& a) {
    for (int k = 0; k < kLanes; ++k) to[k] = a.lane[k];
  }
  static Vector fma(const Vector& a, const Vector& b, Vector c) {
    for (int k = 0; k < kLanes; ++k) c.lane[k] = exact_fma(a.lane[k], b.lane[k], c.lane[k]);
    return c;
  }
  static Vector add(Vector a, const Vector& b) {
    for (int k = 0; k < kLanes; ++k) a.lane[k] += b.lane[k];
    return a;
  }
  static Vector max(const Vector& a, Vector b) {
    for (int k = 0; k < kLanes; ++k)
      if (a.lane[k] > b.lane[k]) b.lane[k] = a.lane[k];
    return b;
  }
  static Vector min(const Vector& a, Vector b) {
    for (int k = 0; k < kLanes; ++k)
      if (a.lane[k] < b.lane[k]) b.lane[k] = a.lane[k];
    return b;
  }
  static uint32_t bits(uint32_t mask) { return mask; }
  static uint32_t above(const Vector& a, const Vector& b) {
    uint32_t mask = 0;
    for (int k = 0; k < kLanes; ++k) mask |= uint32_t(a.lane[k] > b.lane[k]) << k;
    return mask;
  }
};

}  // namespace

TopCellsKernels top_cells_portable() { return kernels_of<Lanes>(); }

}  // namespace otcuda::cpu
