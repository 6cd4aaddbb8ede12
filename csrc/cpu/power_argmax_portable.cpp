// SPDX-License-Identifier: Apache-2.0
#include "cpu/power_argmax_body.h"

namespace otcuda::cpu {
namespace {

template <class T>
struct Lanes {
  using Value = T;
  static constexpr int kLanes = 4, kVectors = 1, kTargets = 4, kStreamD = 0, kChunk = 1024;
  static constexpr int kGroupTiles = 2;
  struct Vector {
    T lane[kLanes];
  };
  using Place = typename ArgmaxIndex<T>::Type;
  using Places = int64_t;

  static Vector fill(T a) { return {{a, a, a, a}}; }
  static Vector load(const T* from) { return {{from[0], from[1], from[2], from[3]}}; }
  static void store(T* to, const Vector& a) {
    for (int k = 0; k < kLanes; ++k) to[k] = a.lane[k];
  }
  static Vector mul(Vector a, const Vector& b) {
    for (int k = 0; k < kLanes; ++k) a.lane[k] *= b.lane[k];
    return a;
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
  static Places places(int64_t first) { return first; }
  static Places next(Places here) { return here + kTargets; }
  static void keep_place(const Vector& highest, const Vector& best, Places here, Place* to) {
    for (int k = 0; k < kLanes; ++k)
      if (highest.lane[k] > best.lane[k]) to[k] = static_cast<Place>(here);
  }
};

}  // namespace

ArgmaxKernels power_argmax_portable() {
  return {kernel_of<Lanes<float>>(), kernel_of<Lanes<double>>()};
}

}  // namespace otcuda::cpu
