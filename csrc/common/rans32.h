// SPDX-License-Identifier: Apache-2.0
// rans32: asymmetric numeral systems in 32 lanes, for messages of 100 kB and more.
//
//   state     u32 in [2^16, 2^32) a lane; symbol i belongs to lane i mod 32
//   push      (start c, frequency f) of 2^P: if x >> (32-P) >= f, write the low 16 bits, x >>= 16;
//             then x = (x / f << P) + x mod f + c
//   pop       slot = x mod 2^P; c <= slot < c + f; x = f (x >> P) + slot - c
//   refill    after all lanes of a group of 32 symbols: those with x < 2^16 take the next words in
//             ascending order of lanes, x = x << 16 | word
//   block     state [32] u32 | words u16 | values of escaped symbols, in the decoder's order; the
//             encoder goes backwards, from states of 2^16, at which the decoder must end
//
// Contract:
//   tables    any of tables.h; slots past the frequencies are the escape's
//   levels    portable, AVX2 and AVX-512 write and read the same bytes
//   loops     decoding n symbols takes O(n) steps whatever the bytes are
//
// The final states are no checksum (two symbols of one frequency can change places): blocks carry a
// check over their symbols. The format for a stranger: docs/coding.md.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace otcuda {

constexpr int kRansLanes = 32;
constexpr uint32_t kRansLow = uint32_t{1} << 16;

// How much a symbol at place i of a block weighs in its check. Loops add kCheckStep up.
constexpr uint32_t kCheckStep = 0x9E3779B1u;

OTCUDA_HD uint32_t check_mixed(uint32_t y) { return (y ^ y >> 15) | 1; }
OTCUDA_HD uint32_t check_weight(uint32_t i) { return check_mixed(i * kCheckStep); }

// A word of the message, at any alignment.
OTCUDA_HD uint32_t rans_word(const uint8_t* bytes) { return bytes[0] | uint32_t{bytes[1]} << 8; }

// Whether the lane must write a word before it takes a symbol of this frequency.
OTCUDA_HD bool rans_full(uint32_t x, uint32_t frequency, int P) {
  return x >> (32 - P) >= frequency;
}

OTCUDA_HD uint32_t rans_push(uint32_t x, uint32_t start, uint32_t frequency, int P) {
  return x + start + x / frequency * ((uint32_t{1} << P) - frequency);  // x / f 2^P + x mod f + c
}

OTCUDA_HD uint32_t rans_pop(uint32_t x, uint32_t rank, uint32_t frequency, int P) {
  return frequency * (x >> P) + rank;  // rank = slot - start
}

}  // namespace otcuda
