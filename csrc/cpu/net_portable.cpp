// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "common/host_device.h"

namespace otcuda::cpu {
namespace {

// Loops of fixed length, which compilers turn into what the machine has.
struct Lanes {
  static constexpr int n = 4;
  static constexpr int rows = 2;
  struct Vector {
    float v[n];
  };

  template <class Function>
  static Vector each(const Function& function) {
    Vector result;
    for (int l = 0; l < n; ++l) result.v[l] = function(l);
    return result;
  }

  static Vector fill(float v) {
    return each([&](int) { return v; });
  }
  static Vector load(const float* p) {
    return each([&](int l) { return p[l]; });
  }
  static void store(float* p, Vector a) {
    for (int l = 0; l < n; ++l) p[l] = a.v[l];
  }
  static Vector add(Vector a, Vector b) {
    return each([&](int l) { return a.v[l] + b.v[l]; });
  }
  static Vector sub(Vector a, Vector b) {
    return each([&](int l) { return a.v[l] - b.v[l]; });
  }
  static Vector mul(Vector a, Vector b) {
    return each([&](int l) { return a.v[l] * b.v[l]; });
  }
  static Vector max(Vector a, Vector b) {
    return each([&](int l) { return a.v[l] > b.v[l] ? a.v[l] : b.v[l]; });
  }
  static Vector fma(Vector a, Vector b, Vector c) {
    return each([&](int l) { return exact_fma(a.v[l], b.v[l], c.v[l]); });
  }
};

}  // namespace
}  // namespace otcuda::cpu

#include "cpu/conv3_body.h"
#include "cpu/net_body.h"

namespace otcuda::cpu {
const NetKernels net_kernels_portable = {&products, &input, &output};
const Conv3Kernels conv3_kernels_portable = {&kernel, &kernel_gradient, &spread, &outer};
}  // namespace otcuda::cpu
