// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

namespace otcuda::cpu {
namespace {

// Loops of fixed length, which compilers turn into what the machine has.
struct Lanes {
  static constexpr int n = 4;
  struct Sums {
    int32_t v[n];
  };
  struct Pairs {
    int16_t v[2 * n];
  };

  template <class Function>
  static Sums each(const Function& function) {
    Sums sums;
    for (int l = 0; l < n; ++l) sums.v[l] = function(l);
    return sums;
  }

  static Sums fill(int32_t v) {
    return each([&](int) { return v; });
  }
  static Sums load(const int32_t* p) {
    return each([&](int l) { return p[l]; });
  }
  static void store(int32_t* p, Sums a) {
    for (int l = 0; l < n; ++l) p[l] = a.v[l];
  }
  static Sums add(Sums a, Sums b) {
    return each([&](int l) { return a.v[l] + b.v[l]; });
  }
  static Sums min(Sums a, Sums b) {
    return each([&](int l) { return a.v[l] < b.v[l] ? a.v[l] : b.v[l]; });
  }
  static Sums max(Sums a, Sums b) {
    return each([&](int l) { return a.v[l] > b.v[l] ? a.v[l] : b.v[l]; });
  }
  static Sums shift_right(Sums a, int32_t by) {
    return each([&](int l) { return a.v[l] >> by; });
  }
  static Sums shift_right_each(Sums a, Sums by) {
    return each([&](int l) { return a.v[l] >> by.v[l]; });
  }
  static void store_narrow(int16_t* p, Sums a) {
    for (int l = 0; l < n; ++l) p[l] = int16_t(a.v[l]);
  }
  static Pairs load_pairs(const int16_t* p) {
    Pairs pairs;
    for (int l = 0; l < 2 * n; ++l) pairs.v[l] = p[l];
    return pairs;
  }
  static Pairs fill_pair(const void* p) {
    int16_t pair[2];
    __builtin_memcpy(pair, p, sizeof pair);
    Pairs pairs;
    for (int l = 0; l < 2 * n; ++l) pairs.v[l] = pair[l & 1];
    return pairs;
  }
  static Sums madd(Pairs a, Pairs b) {
    return each([&](int l) { return a.v[2 * l] * b.v[2 * l] + a.v[2 * l + 1] * b.v[2 * l + 1]; });
  }
};

}  // namespace
}  // namespace otcuda::cpu

#include "cpu/context_net_body.h"

namespace otcuda::cpu {
const ContextKernels context_kernels_portable = {&dense, &sparse};
}  // namespace otcuda::cpu
