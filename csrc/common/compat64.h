// SPDX-License-Identifier: Apache-2.0
// compat64: the bytes of CompressAI's `ans` extension, for users who have streams of it.
//
//   state     u64 in [2^31, 2^63), words of 32 bits, little-endian; one lane; P = 16
//   message   the last state (u64), then the words, in the decoder's order
//   symbol    value - offset; from cdf_size - 2 on, and below 0, the sentinel's slot and then, in
//             parts of 4 bits with 2^-4 each: the number of parts (15: more follow), the parts of
//             2 (value - sentinel) or -2 value - 1, lowest first
//
// Contract:
//   cdf       [T, W] int32 rows of at most W entries, sizes [T]: from 0, rising, to 2^16
//   loops     decoding n symbols takes O(n) steps whatever the bytes are
//
// Format after CompressAI 1.2 (rans_interface.cpp) and F. Giesen's rans64; vectors made by it are
// in the tests.
#pragma once

#include <cstdint>

namespace otcuda {

constexpr int kCompatPrecision = 16;
constexpr int kCompatPartBits = 4;
constexpr uint64_t kCompatLow = uint64_t{1} << 31;

}  // namespace otcuda
