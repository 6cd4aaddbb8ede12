// SPDX-License-Identifier: Apache-2.0
// range64: a range coder of 64-bit state, for messages of a few bytes to a few megabytes.
//
//   encoder   low, range (u64), 2^64 - 1 at the start; bytes leave in big-endian words of 32 bits
//   a step    r = range >> P;  low += r c  (an overflow is carried into the bytes already written);
//             range = r f;     range < 2^32: write the top word of low, shift low and range by 32
//   finish    the shortest byte string in [low, low + range), without its trailing zero bytes
//   lanes     2 or 4 coders at once: symbol i belongs to lane i mod L; the lengths of all lanes but
//             the last (LEB128), then their messages
//   decoder   first in, first out; reads zeros past the end; never fails, only notes what no
//   encoder writes
//
// Contract:
//   put       0 <= c, 1 <= f, c + f <= 2^P, 1 <= P <= 24; the cost is P - log2 f bits
//   uniform   0 <= value < count <= 2^24, the cost is log2 count bits: no table, no loss for count
//   != 2^k bits      k <= 64 raw bits, high ones first;  exp_golomb  any u64 < 2^64 - 1, for what
//   tables leave out excess    about 2.6 bits a message over the sum of these costs, whatever its
//   length; 0 for equiprobable symbols loops     decoding n symbols takes O(n) steps whatever the
//   bytes are: the caller bounds n
//
// Host and device share the text. Depends on little, so that a context model can interleave it with
// its own arithmetic, symbol by symbol. Arguments outside the contract are the caller's error: they
// are checked at the door, not in here. The format for a stranger: docs/coding.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/host_device.h"

namespace otcuda {

constexpr int kRangePrecisionMax = 24;  // r >= 2^8, so one renormalisation a step is enough
constexpr uint32_t kRangeUniformMax = uint32_t{1} << kRangePrecisionMax;

// Big-endian; a container that stores whole words at once has a function of its own.
template <class Bytes>
OTCUDA_ON_BOTH void push_word(Bytes& bytes, uint32_t word) {
  for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<uint8_t>(word >> shift));
}

// Bytes: anything with size(), back(), push_back, pop_back, [] and a default constructor
// (std::vector of any allocator).
template <class Bytes>
class BasicRangeEncoder {
 public:
  BasicRangeEncoder() = default;
  OTCUDA_ON_BOTH explicit BasicRangeEncoder(Bytes empty)
      : bytes_(std::move(empty)) {}  // with memory reserved

  OTCUDA_ON_BOTH void put(uint32_t c, uint32_t f, int P) {
    const uint64_t r = range_ >> P;
    add(r * c);
    range_ = r * f;
    renormalise();
  }

  // p1: the probability of a 1 in units of 2^-P, 1 <= p1 < 2^P. A 1 lies below a 0.
  OTCUDA_ON_BOTH void bit(bool value, uint32_t p1, int P) {
    if (value) {
      put(0, p1, P);
    } else {
      put(p1, (uint32_t{1} << P) - p1, P);
    }
  }

  OTCUDA_ON_BOTH void uniform(uint32_t value, uint32_t count) {
    const uint64_t r = range_ / count;
    add(r * value);
    range_ = r;
    renormalise();
  }

  OTCUDA_ON_BOTH void bits(uint64_t value, int k) {
    while (k > 0) {
      const int part = k % 16 != 0 ? k % 16 : 16;
      k -= part;
      put(static_cast<uint32_t>(value >> k & 0xffff) & ((1u << part) - 1), 1, part);
    }
  }

  // Exp-Golomb code of order 0, value < 2^64 - 1: a 0 for each bit of value + 1 behind its leading
  // one, the leading one, those bits. All but the last are steps of one bit, as the decoder's.
  OTCUDA_ON_BOTH void exp_golomb(uint64_t value) {
    int behind = 0;
    while ((value + 1) >> behind > 1) ++behind;
    for (int i = 0; i < behind; ++i) bits(0, 1);
    bits(1, 1);
    bits(value + 1, behind);
  }

  // The message. The encoder is then as new.
  OTCUDA_ON_BOTH Bytes finish() {
    for (int k = 0; k <= 8; ++k) {
      const uint64_t below = k == 8 ? 0 : ~uint64_t{0} >> 8 * k;
      const uint64_t top = (low_ + below) & ~below;  // the next multiple of 2^(64 - 8k)
      if (top - low_ >= range_) continue;  // an unsigned distance: right also when top passed 2^64
      if (top < low_) carry();
      for (int j = 0; j < k; ++j) bytes_.push_back(static_cast<uint8_t>(top >> (56 - 8 * j)));
      break;
    }
    while (bytes_.size() > 0 && bytes_.back() == 0) bytes_.pop_back();
    Bytes message = std::move(bytes_);
    *this = BasicRangeEncoder();
    return message;
  }

  // finish() now would return at most so many bytes.
  OTCUDA_ON_BOTH size_t size_bound() const { return bytes_.size() + 8; }

 private:
  OTCUDA_ON_BOTH void add(uint64_t step) {
    low_ += step;
    if (low_ < step) carry();
  }

  // The message is below 1 as a binary fraction, so the carry always stops before the first byte.
  OTCUDA_ON_BOTH void carry() {
    size_t i = bytes_.size();
    while (i > 0 && ++bytes_[i - 1] == 0) --i;
  }

  OTCUDA_ON_BOTH void renormalise() {
    if (range_ >> 32 != 0) return;
    push_word(bytes_, static_cast<uint32_t>(low_ >> 32));
    low_ <<= 32;
    range_ <<= 32;
  }

  Bytes bytes_;
  uint64_t low_ = 0;
  uint64_t range_ = ~uint64_t{0};
};

using RangeEncoder = BasicRangeEncoder<std::vector<uint8_t>>;

// Borrows the message. Any bytes decode to something in bounds; corrupt() and finished() say what
// is known to be wrong.
class RangeDecoder {
 public:
  OTCUDA_ON_BOTH RangeDecoder() : RangeDecoder(nullptr, 0) {}
  OTCUDA_ON_BOTH RangeDecoder(const uint8_t* data, size_t size)
      : next_(data), end_(data + size), begin_(data) {
    code_ = uint64_t{word()} << 32;
    code_ |= word();
  }

  // Two halves of a step: find the symbol with c <= slot(P) < c + f, then take(c, f, P).
  OTCUDA_ON_BOTH uint32_t slot(int P) {
    const uint64_t r = range_ >> P, last = (uint64_t{1} << P) - 1;
#if defined(__CUDA_ARCH__) || defined(OTCUDA_EMULATED)
    return slot_by_guess(r, static_cast<uint32_t>(last), P);
#else
    const uint64_t found = code_ / r;
    corrupt_ |= found > last;  // what the shift left over belongs to no symbol
    return static_cast<uint32_t>(found > last ? last : found);
#endif
  }

  OTCUDA_ON_BOTH void take(uint32_t c, uint32_t f, int P) {
    const uint64_t r = range_ >> P;
    code_ -= r * c;
    range_ = r * f;
    renormalise();
  }

  // So many steps find their words in the message, whatever they are; get_roomy may take them. It
  // finds of a slot (cut to P bits) its symbol, frequency and rank (slot - c). The caller looks at
  // the slots: where one is 2^P or more, no encoder wrote this, and what follows means nothing.
  // With several lanes the branch at every word costs more, mispredicted, than a choice does.
  OTCUDA_ON_BOTH int64_t room() const { return (end_ - next_) / 4; }

  template <bool kBranchFree, class Find>
  OTCUDA_ON_BOTH uint32_t get_roomy(int P, const Find& find, uint64_t* slot) {
    const uint64_t r = range_ >> P;
    *slot = code_ / r;
    const uint64_t rest = code_ % r;
    const auto found = find(static_cast<uint32_t>(*slot) & ((1u << P) - 1));
    code_ = rest + r * found.rank;
    range_ = r * found.frequency;
    if (!kBranchFree) {
      renormalise();
      return found.symbol;
    }
    uint32_t next = 0;
    for (int i = 0; i < 4; ++i) next = next << 8 | next_[i];
    // By shifts: of a choice between two numbers GCC makes the branch.
    const int by = range_ >> 32 == 0 ? 32 : 0;
    code_ = code_ << by | uint64_t{next} >> (32 - by);
    range_ <<= by;
    next_ += by / 8;
    return found.symbol;
  }

  // The symbol s of n with cumulative[s] <= slot < cumulative[s + 1]; cumulative[0] = 0,
  // cumulative[n] = 2^P. Frequencies of 0 are skipped. At most log2 n + 1 steps. Arrays of u16
  // serve up to P = 15.
  template <class Integer>
  OTCUDA_ON_BOTH uint32_t get(const Integer* cumulative, uint32_t n, int P) {
    const uint32_t at = slot(P);
    uint32_t low = 0, high = n;  // cumulative[low] <= at < cumulative[high]
    while (high - low > 1) {
      const uint32_t middle = low + (high - low) / 2;
      (cumulative[middle] <= at ? low : high) = middle;
    }
    take(cumulative[low], cumulative[low + 1] - cumulative[low], P);
    return low;
  }

  OTCUDA_ON_BOTH bool bit(uint32_t p1, int P) {
    const uint64_t r = range_ >> P;
    const uint64_t ones = r * p1;
    const bool value = code_ < ones;  // no division
    if (!value) code_ -= ones;
    range_ = value ? ones : r * ((uint32_t{1} << P) - p1);
    corrupt_ |= code_ >= range_;
    renormalise();
    return value;
  }

  OTCUDA_ON_BOTH uint32_t uniform(uint32_t count) {
    const uint64_t r = range_ / count;
    uint64_t value = code_ / r;
    if (value >= count) {
      corrupt_ = true;
      value = count - 1;
    }
    code_ -= r * value;
    range_ = r;
    renormalise();
    return static_cast<uint32_t>(value);
  }

  OTCUDA_ON_BOTH uint64_t bits(int k) {
    uint64_t value = 0;
    while (k > 0) {
      const int part = k % 16 != 0 ? k % 16 : 16;
      k -= part;
      const uint32_t chunk = slot(part);
      take(chunk, 1, part);
      value = value << part | chunk;
    }
    return value;
  }

  OTCUDA_ON_BOTH uint64_t exp_golomb() {
    int behind = 0;
    while (behind < 63 && bits(1) == 0) ++behind;
    if (behind == 63) corrupt_ |= bits(1) == 0;
    return (uint64_t{1} << behind | bits(behind)) - 1;
  }

  // A step was seen that no encoder takes. What was decoded since is in bounds and means nothing.
  OTCUDA_ON_BOTH bool corrupt() const { return corrupt_; }

  // The caller has decoded what its own encoder never writes.
  OTCUDA_ON_BOTH void reject() { corrupt_ = true; }

  // To be asked after the last symbol: no such step, no bytes to spare, no trailing zero.
  OTCUDA_ON_BOTH bool finished() const {
    return !corrupt_ && next_ == end_ && (begin_ == end_ || end_[-1] != 0);
  }

 private:
  // For P <= 16, which is what tables on a device have: a GPU divides 64 bits by some 100
  // instructions, but so short a quotient is guessed in float32, at most one off.
  OTCUDA_ON_BOTH uint32_t slot_by_guess(uint64_t r, uint32_t last, int P) {
    if (code_ >= r << P) {
      corrupt_ = true;
      return last;
    }
    const float guess = rough_divide(static_cast<float>(code_), static_cast<float>(r));
    const uint32_t found = static_cast<uint32_t>(guess);
    const uint64_t product = r * found;  // at most r 2^P
    if (product > code_) return found - 1;
    return code_ - product >= r ? found + 1 : found;
  }

  OTCUDA_ON_BOTH uint32_t word() {
    uint32_t value = 0;
    if (end_ - next_ >= 4) {
      for (int i = 0; i < 4; ++i) value = value << 8 | next_[i];  // one load and a byte swap
      next_ += 4;
      return value;
    }
    for (int i = 0; i < 4; ++i) value = value << 8 | (next_ < end_ ? *next_++ : 0u);
    return value;
  }

  OTCUDA_ON_BOTH void renormalise() {
    if (range_ >> 32 != 0) return;
    code_ = code_ << 32 | word();
    range_ <<= 32;
  }

  const uint8_t* next_;
  const uint8_t* end_;
  const uint8_t* begin_;
  uint64_t code_ = 0;
  uint64_t range_ = ~uint64_t{0};
  bool corrupt_ = false;
};

}  // namespace otcuda
