// SPDX-License-Identifier: Apache-2.0
// Integer tables on the CPU: how they are made, and the look-ups that coding needs. Contract:
// csrc/common/tables.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>

#include "common/alloc.h"
#include "common/poll.h"
#include "common/tables.h"

namespace otcuda::cpu {

// weights [T, n] -> frequencies [T, n]. With escape, symbols that a slot would not pay for (below
// 1.5 / b slots, b = bits of n: what an escape costs more than a slot) get 0, but never the
// heaviest; at most 2^P - 1 are kept. ArgumentError for a table without weight
// and for n > 2^P without escape. Of equal optima the one that favours lower symbols.
void quantise(const uint32_t* weights, int64_t T, int64_t n, int precision, bool escape,
              uint32_t* frequencies, Poll& poll);

// Weights of the bins [s - 1/2, s + 1/2], s = low .. low + n - 1, of a density of mean 0; scale is
// the standard deviation or the mean of |x| in units of 2^-16, from 2^11 (1/32) to 2^32 (65536).
Vector<uint32_t> gaussian_weights(uint64_t scale_q16, int32_t low, int64_t n);
Vector<uint32_t> laplace_weights(uint64_t scale_q16, int32_t low, int64_t n);

// Immutable after construction but for what call_once builds, so any number of threads may read it.
class Tables {
 public:
  // frequencies [T, n]. ArgumentError where the contract does not hold.
  Tables(const uint32_t* frequencies, int64_t T, int64_t n, int32_t low, int precision,
         bool escape);

  struct Interval {
    uint32_t start;
    uint32_t frequency;  // 0: the symbol has no interval of its own
  };
  struct Found {
    uint32_t symbol;  // counted from low
    uint32_t start;
    uint32_t frequency;
  };

  int64_t count() const { return count_; }
  int64_t symbols() const { return symbols_; }
  int32_t low() const { return low_; }
  int precision() const { return precision_; }
  bool escape() const { return escape_; }

  // table < count(), symbol < symbols().
  Interval interval(uint32_t table, uint32_t symbol) const {
    if (wide()) {
      const uint32_t* at = starts(table) + symbol;
      return {at[0], at[1] - at[0]};
    }
    const uint32_t p = intervals_[static_cast<size_t>(table) * symbols_ + symbol];
    return {p & 0xffff, p >> 16 == 0 && !escape_ ? full_ : p >> 16};
  }

  // Over 16 bits of precision: intervals and look-ups in words do not exist, find halves the table.
  bool wide() const { return precision_ > kTableWordPrecisionMax; }

  // table < count(), slot < 2^P and not the escape's.
  Found find(uint32_t table, uint32_t slot) const {
    if (wide()) return find_wide(table, slot);
    const uint32_t bucket = buckets_[(static_cast<size_t>(table) << bucket_bits_) +
                                     (slot >> (precision_ - bucket_bits_))];
    const uint32_t* at = &kept_[kept_begin_[table] + bucket];
    // At most as many steps as a bucket has slots: each kept symbol owns one.
    while (slot - (*at & 0xffff) >= width(at)) ++at;
    return {*at >> 16, *at & 0xffff, width(at)};
  }

  uint32_t escape_slot() const { return full_ - 1; }

  // An entry a slot, [T, 2^P]: symbol | (frequency - 1) << 8 | (slot - start) << 20; the escape's
  // slot has rank 0 and frequency 1. For P <= 12 and at most 256 symbols, else null. Made at the
  // first call: messages of a few symbols do without.
  const uint32_t* direct() const;

  // A slot's symbol, its frequency and the slot's rank in it, each for one load: [T, 2^P], 8 bytes
  // a slot, so for small look-ups. The escape's slot has rank 0 and frequency 1. For P <= 12.
  struct Slot {
    uint16_t frequency, rank, symbol, unused;
  };
  const Slot* slots() const;

  // As direct() in half the memory, [T, 2^P]: the slot's place in entries(), which hold symbol |
  // (frequency - 1) << 8 | start << 20, the escape's among them. Null as direct(), or for 2^16
  // entries and more.
  const uint16_t* places() const;
  const uint32_t* entries() const { return entries_.data(); }  // after places()

  // The arrays themselves, for loops that gather from them; empty if wide(). start | frequency <<
  // 16, [T * n + 1]: 0 modulo 2^16 stands for no interval (the last one, for what is outside the
  // alphabet) or for all 2^16. start | symbol << 16 of the symbols with a frequency, of each table
  // from begin[t], and an end; the place there of the first one that reaches into a bucket, [T,
  // 2^bits].
  const uint32_t* intervals() const { return intervals_.data(); }
  const uint32_t* kept() const { return kept_.data(); }
  size_t kept_size() const { return kept_.size(); }
  const uint32_t* kept_begin() const { return kept_begin_.data(); }
  const uint16_t* buckets() const { return buckets_.data(); }
  int bucket_bits() const { return bucket_bits_; }

 private:
  const uint32_t* starts(uint32_t table) const {  // [n + 1], of wide tables
    return &starts_[static_cast<size_t>(table) * static_cast<size_t>(symbols_ + 1)];
  }
  Found find_wide(uint32_t table, uint32_t slot) const;
  // Differences modulo 2^16: only a lone symbol at P = 16 owns all 2^16 slots.
  uint32_t width(const uint32_t* at) const {
    const uint32_t f = (at[1] - at[0]) & 0xffff;
    return f == 0 ? full_ : f;
  }
  bool narrow() const;
  void fill_direct(uint32_t table) const;
  void fill_places(uint32_t table) const;
  void index_table(const uint32_t* frequencies, int64_t table);
  void list_starts(const uint32_t* frequencies);
  uint32_t total() const;  // of the frequencies of a table
  // The frequency of the next symbol, and the sum of them all. ArgumentError where they are wrong.
  uint32_t checked(uint32_t frequency, uint32_t start, int64_t table) const;
  void check_sum(uint32_t sum, int64_t table) const;

  int64_t count_, symbols_;
  int32_t low_;
  int precision_;
  bool escape_;
  uint32_t full_;  // 2^P
  int bucket_bits_;
  Vector<uint32_t> intervals_, kept_, kept_begin_, starts_;
  Vector<uint16_t> buckets_;  // and one more, since gathers read 32 bits
  mutable std::once_flag direct_made_, slots_made_, places_made_;
  mutable Vector<Slot> slots_;
  mutable Vector<uint32_t> direct_, entries_;
  mutable Vector<uint16_t> places_;
};

}  // namespace otcuda::cpu
