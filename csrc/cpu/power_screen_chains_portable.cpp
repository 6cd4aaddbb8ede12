// SPDX-License-Identifier: Apache-2.0
#include "cpu/power_screen_chains_body.h"

namespace otcuda::cpu {
namespace {

struct Lanes {
  static constexpr int kLanes = 8, kStep = 4;
  struct Vector {
    float lane[kLanes];
  };

  static Vector fill(float a) { return {{a, a, a, a, a, a, a, a}}; }
  static Vector loadu(const float* from) {
    Vector a;
    __builtin_memcpy(&a, from, sizeof a);
    return a;
  }
  static void storeu(float* to, const Vector& a) { __builtin_memcpy(to, &a, sizeof a); }
  static Vector fma(const Vector& a, const Vector& b, Vector c) {
    for (int k = 0; k < kLanes; ++k) c.lane[k] = exact_fma(a.lane[k], b.lane[k], c.lane[k]);
    return c;
  }
  static Vector add(Vector a, const Vector& b) {
    for (int k = 0; k < kLanes; ++k) a.lane[k] += b.lane[k];
    return a;
  }
  static void columns(const float* const* rows, int64_t d, Vector (&out)[4]) {
    for (int j = 0; j < 4; ++j) {
      for (int k = 0; k < kLanes; ++k) out[j].lane[k] = rows[k][d + j];
    }
  }
};

}  // namespace

void power_screen_chains_portable(const ScreenPairs& pairs) { screen_chains<Lanes>(pairs); }

}  // namespace otcuda::cpu
