// SPDX-License-Identifier: Apache-2.0
// Symbols behind an escape in range64: one text for the host and CUDA. The format: docs/coding.md.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "common/range64.h"

namespace otcuda {

// What follows the escape of a symbol low + offset: the symbol, uniform among n + 1; n stands for
// those outside the alphabet, told by their side and their distance.
template <class Encoder>
OTCUDA_ON_BOTH void range64_put_escaped(Encoder& encoder, int64_t offset, int64_t n) {
  const uint32_t count = static_cast<uint32_t>(n + 1);
  if (offset >= 0 && offset < n) {
    encoder.uniform(static_cast<uint32_t>(offset), count);
    return;
  }
  encoder.uniform(static_cast<uint32_t>(n), count);
  encoder.bits(offset < 0 ? 1 : 0, 1);
  encoder.exp_golomb(static_cast<uint64_t>(offset < 0 ? -1 - offset : offset - n));
}

// The inverse; has_interval(symbol) tells of 0 .. n - 1 what an encoder does not escape.
template <class HasInterval>
OTCUDA_ON_BOTH int32_t range64_get_escaped(RangeDecoder& decoder, int64_t low, int64_t n,
                                           const HasInterval& has_interval) {
  const uint32_t inside = decoder.uniform(static_cast<uint32_t>(n + 1));
  if (inside < n) {
    if (has_interval(inside)) decoder.reject();
    return static_cast<int32_t>(low + inside);
  }
  const bool below = decoder.bits(1) != 0;
  const uint64_t far = decoder.exp_golomb(), most = uint64_t{1} << 33;
  const int64_t distance = static_cast<int64_t>(far < most ? far : most);
  const int64_t symbol = below ? low - 1 - distance : low + n + distance;
  if (symbol >= INT32_MIN && symbol <= INT32_MAX) return static_cast<int32_t>(symbol);
  decoder.reject();
  return static_cast<int32_t>(low);
}

// Bits that the longest code of an integer from first to last takes, rounded up: n symbols take at
// most n times as many, in whole bytes (after b bits range is 2^(64 - b), shifts aside, so finish
// finds its number with ceil(b / 8) bytes in all). The distance of a symbol outside the alphabet
// costs 2 L + 1 bits, L = log2(distance + 1).
inline int range64_most_bits(int precision, bool escape, int64_t low, int64_t n, int64_t first,
                             int64_t last) {
  if (!escape) return precision + 1;  // what steps lose in rounding is far less than a bit
  const auto log2_up = [](uint64_t v) {
    int bits = 0;
    while (bits < 63 && uint64_t{1} << bits < v) ++bits;
    return bits;
  };
  const int inside = precision + 1 + log2_up(static_cast<uint64_t>(n + 1));
  const int64_t above = last - (low + n), below = low - 1 - first;
  const int64_t distance = above > below ? above : below;
  if (distance < 0) return inside;
  return inside + 2 + 2 * log2_up(static_cast<uint64_t>(distance + 2));
}

// Why a message is refused on a device, in the low byte of a fault; its number is above it.
enum class RangeFault : int {
  ends = 1,       // symbols that do not begin where the message before ended, or beyond the last
  byte_ends = 2,  // bytes of which that holds
  corrupt = 3,    // a step that no encoder writes
  unfinished = 4,
};

}  // namespace otcuda
