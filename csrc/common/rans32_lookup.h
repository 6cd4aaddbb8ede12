// SPDX-License-Identifier: Apache-2.0
// What rans32 asks of tables and side bytes, symbol by symbol: one text for the host and CUDA.
//
// Where the tables lie on a device is an image, u32 words one after the other:
//   kept_begin [T] | kept [K] | buckets u16, two a word | intervals [T n + 1] | direct [T 2^P] or
//   none
// with the arrays of cpu/tables.h. A decoder needs the first three or the last, an encoder the
// intervals.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "common/rans32.h"

namespace otcuda {

// The largest look-up by slot that an image holds; searching takes over beyond.
constexpr int64_t kRansDirectWords = 12288;

// Sizes of tables, and the places of their arrays in the image.
struct RansShape {
  int64_t count, symbols, kept;  // T, n, K
  int32_t low;
  int precision, bucket_bits;
  bool escape, direct;

  OTCUDA_HD int64_t bucket_words() const { return ((count << bucket_bits) + 2) / 2; }
  OTCUDA_HD int64_t search_words() const { return count + kept + bucket_words(); }
  OTCUDA_HD int64_t direct_words() const { return direct ? count << precision : 0; }
  OTCUDA_HD int64_t intervals_at() const { return search_words(); }
  OTCUDA_HD int64_t direct_at() const { return intervals_at() + count * symbols + 1; }
  OTCUDA_HD int64_t words() const { return direct_at() + direct_words(); }
  OTCUDA_HD int side_width() const { return symbols > 256 ? 2 : 1; }
};

struct RansFoundSlot {
  uint32_t symbol, frequency, rank;  // rank = slot - start
};

// An entry of Tables::direct.
OTCUDA_HD RansFoundSlot rans_unpack(uint32_t entry) {
  return {entry & 0xff, (entry >> 8 & 0xfff) + 1, entry >> 20};
}

// From the first kept symbol that reaches into the slot's bucket onwards; not for the escape's
// slot.
OTCUDA_HD RansFoundSlot rans_walk(const uint32_t* kept, uint32_t slot) {
  uint32_t own = *kept;
  for (;;) {
    const uint32_t next = *++kept, width = (next - own) & 0xffff;
    const uint32_t frequency = width == 0 ? 65536 : width, rank = slot - (own & 0xffff);
    if (rank < frequency) return {own >> 16, frequency, rank};
    own = next;
  }
}

struct RansInterval {
  uint32_t start, frequency;
  bool escaped;
};

// Of a word of Tables::intervals.
OTCUDA_HD RansInterval rans_interval(uint32_t word, int precision, bool escape) {
  const uint32_t frequency = word >> 16;
  if (frequency != 0) return {word & 0xffff, frequency, false};
  if (escape) return {(uint32_t{1} << precision) - 1, 1, true};
  return {word & 0xffff, 65536, false};
}

constexpr int64_t kRansStateBytes = 4 * kRansLanes;
constexpr int kRansSideBytes = 7;  // of one escaped symbol, at most

OTCUDA_HD int64_t rans_block_bytes(uint32_t words, uint32_t side) {
  return kRansStateBytes + 2 * int64_t{words} + side;
}
OTCUDA_HD int64_t rans_padded(int64_t bytes) { return (bytes + 3) / 4 * 4; }

// What an escaped symbol is told by: the offset in `width` bytes, or the largest number of so many
// bytes, and then the rest, its side in the lowest bit, as LEB128.
struct RansSide {
  uint64_t bytes;  // the first one lowest
  int length;
};

OTCUDA_HD RansSide rans_side(int64_t offset, int width) {
  const int64_t cap = (int64_t{1} << 8 * width) - 1;
  const bool beyond = offset < 0 || offset >= cap;
  RansSide side = {static_cast<uint64_t>(beyond ? cap : offset), width};
  if (!beyond) return side;
  uint64_t rest = static_cast<uint64_t>(offset < 0 ? -1 - offset : offset - cap) << 1;
  rest |= offset < 0 ? 1 : 0;
  for (; rest >= 0x80; rest >>= 7) side.bytes |= ((rest & 0x7f) | 0x80) << 8 * side.length++;
  side.bytes |= rest << 8 * side.length++;
  return side;
}

// The inverse: how many bytes the value took, 0 for what rans_side does not write.
OTCUDA_HD int rans_side_offset(const uint8_t* next, const uint8_t* end, int width,
                               int64_t* offset) {
  const int64_t cap = (int64_t{1} << 8 * width) - 1, left = end - next;
  if (left < width) return 0;
  *offset = 0;
  for (int k = 0; k < width; ++k) *offset |= int64_t{next[k]} << 8 * k;
  if (*offset < cap) return width;
  uint64_t rest = 0;
  int length = width;
  for (int shift = 0;; shift += 7) {
    if (length >= left || shift > 28) return 0;
    const uint8_t byte = next[length++];
    rest |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) {
      if (byte == 0 && shift > 0) return 0;
      break;
    }
  }
  const int64_t distance = static_cast<int64_t>(rest >> 1);
  *offset = (rest & 1) != 0 ? -1 - distance : cap + distance;
  return length;
}

// Why a block is refused, in the low byte of a fault; the number of the block is above it.
enum class RansFault : int {
  state = 1,   // begins with a state that no encoder leaves
  beyond = 2,  // reaches beyond the end
  padding = 3,
  early = 4,  // ends early
  side = 5,   // an escaped symbol that no encoder writes
  unfinished = 6,
  check = 7,
  left_over = 8,  // bytes after the last block
};

}  // namespace otcuda
