// SPDX-License-Identifier: Apache-2.0
#include "cpu/power_screen_body.h"

namespace otcuda::cpu {
namespace {

struct Lanes {
  static constexpr int kLanes = 8, kVectors = 1, kTargets = 2;
  static constexpr bool kWide = false, kHalves = false;
  struct Vector {
    int32_t lane[kLanes];
  };

  static Vector fill(int32_t a) { return {{a, a, a, a, a, a, a, a}}; }
  static Vector load(const void* from) {
    Vector a;
    __builtin_memcpy(&a, from, sizeof a);
    return a;
  }
  static void store(int32_t* to, const Vector& a) { __builtin_memcpy(to, &a, sizeof a); }
  static Vector dot(const Vector& sum, const Vector& x, const Vector& y) {
    uint8_t a[4 * kLanes];
    int8_t b[4 * kLanes];
    uint16_t s[2 * kLanes];
    __builtin_memcpy(a, &x, sizeof a);
    __builtin_memcpy(b, &y, sizeof b);
    __builtin_memcpy(s, &sum, sizeof s);
    for (int k = 0; k < 2 * kLanes; ++k) {
      s[k] = static_cast<uint16_t>(s[k] + a[2 * k] * b[2 * k] + a[2 * k + 1] * b[2 * k + 1]);
    }
    Vector out;
    __builtin_memcpy(&out, s, sizeof out);
    return out;
  }
  static Vector pairs(const Vector& a) {
    int16_t s[2 * kLanes];
    __builtin_memcpy(s, &a, sizeof s);
    Vector out;
    for (int k = 0; k < kLanes; ++k) out.lane[k] = s[2 * k] + s[2 * k + 1];
    return out;
  }
  static Vector add32(Vector a, const Vector& b) {
    for (int k = 0; k < kLanes; ++k) a.lane[k] += b.lane[k];
    return a;
  }
  static Vector sub32(Vector a, const Vector& b) {
    for (int k = 0; k < kLanes; ++k) a.lane[k] -= b.lane[k];
    return a;
  }
  static Vector max32(Vector a, const Vector& b) {
    for (int k = 0; k < kLanes; ++k) a.lane[k] = a.lane[k] > b.lane[k] ? a.lane[k] : b.lane[k];
    return a;
  }
  static uint32_t bits(uint32_t mask) { return mask; }
  static uint32_t above(const Vector& a, const Vector& b) {
    uint32_t mask = 0;
    for (int k = 0; k < kLanes; ++k) mask |= uint32_t(a.lane[k] > b.lane[k]) << k;
    return mask;
  }
};

}  // namespace

ScreenKernels power_screen_portable() { return screen_kernels<Lanes>(60, 1, 0.4); }

}  // namespace otcuda::cpu
