// SPDX-License-Identifier: Apache-2.0
// Portable lanes of power_topk and top_cells: what their bodies ask for, number by number.
#pragma once

#include "common/host_device.h"

namespace otcuda::cpu {
namespace {

template <class T>
struct ListLanes {
  using Value = T;
  static constexpr int kLanes = 4, kVectors = 1, kTargets = 4;
  struct Vector {
    T lane[kLanes];
  };

  static Vector fill(T a) { return {{a, a, a, a}}; }
  static Vector load(const T* from) { return {{from[0], from[1], from[2], from[3]}}; }
  static void store(T* to, const Vector& a) {
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
}  // namespace otcuda::cpu
