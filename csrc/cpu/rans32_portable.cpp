// SPDX-License-Identifier: Apache-2.0
#include "cpu/rans32_body.h"

namespace otcuda::cpu {
namespace {

struct Lanes1 {
  using Vector = uint32_t;
  using Mask = bool;
  static constexpr int kWidth = 1;

  static Vector fill(uint32_t a) { return a; }
  static Vector load(const uint32_t* from) { return *from; }
  static Vector load_half(const uint16_t* from) { return *from; }
  static void store(uint32_t* to, Vector a) { *to = a; }
  static Vector gather(const uint32_t* from, Vector at) { return from[at]; }
  static Vector gather_through(const uint16_t* places, const uint32_t* from, Vector at) {
    return from[places[at]];
  }
  static void store_two(uint32_t* to, uint32_t first, uint32_t second) {
    to[0] = first;
    to[1] = second;
  }
  static Vector gather_half(const uint16_t* from, Vector at) { return from[at]; }
  static Vector add(Vector a, Vector b) { return a + b; }
  static Vector sub(Vector a, Vector b) { return a - b; }
  static Vector mul(Vector a, Vector b) { return a * b; }
  static Vector both(Vector a, Vector b) { return a & b; }
  static Vector either(Vector a, Vector b) { return a | b; }
  static Vector differ(Vector a, Vector b) { return a ^ b; }
  static Vector low_half(Vector a) { return a & 0xffff; }
  static Vector shift_left(Vector a, int by) { return a << by; }
  static Vector shift_right(Vector a, int by) { return a >> by; }
  static Mask equal(Vector a, Vector b) { return a == b; }
  static Mask less(Vector a, Vector b) { return a < b; }
  static Mask negative(Vector a) { return a >> 31 != 0; }
  static Mask any(Mask a, Mask b) { return a || b; }
  static Mask below(Vector a, Vector b) { return a < b; }
  static bool all(Mask a) { return a; }
  static uint32_t bits(Mask a) { return a ? 1 : 0; }
  static Vector select(Mask a, Vector yes, Vector no) { return a ? yes : no; }
  static Vector where(Mask a, Vector b) { return a ? b : 0; }
  static Vector unless(Mask a, Vector b) { return a ? 0 : b; }
  static Vector reciprocal(Vector a) { return a; }
  static Vector quotient(Vector a, Vector b) { return a / b; }
  static uint16_t* emit(uint16_t* words, Mask fits, Vector x) {
    if (!fits) *--words = static_cast<uint16_t>(x);
    return words;
  }
  static const uint8_t* refill(const uint8_t* words, Vector* x) {
    if (*x >> 16 != 0) return words;
    *x = *x << 16 | rans_word(words);
    return words + 2;
  }
};

}  // namespace

RansKernels rans32_portable() { return kernels_of<Lanes1>(); }

}  // namespace otcuda::cpu
