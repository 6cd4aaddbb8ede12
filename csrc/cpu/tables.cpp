// SPDX-License-Identifier: Apache-2.0
#include "cpu/tables.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <string>
#include <utility>

#include "common/check.h"

namespace otcuda::cpu {
namespace {

constexpr uint64_t kLog2E = 6196328018;      // log2(e) in Q32
constexpr uint64_t kHalfLog2E = 3098164009;  // log2(e) / 2 in Q32
constexpr int kDirectPrecisionMax = 12;      // ranks and frequencies fit 12 bits
constexpr int kMidpoints = 64;               // of a bin: enough for a deviation of 1/32

// log2 in Q56 of the shares of a table: in a list where it is short, else when asked for.
class Logs {
 public:
  explicit Logs(uint32_t total) : total_(total) {
    if (total > 1u << kTableWordPrecisionMax) return;
    for (uint32_t k = 0; k <= total; ++k) listed_.push_back(k == 0 ? 0 : log2_q56(k));
  }
  uint32_t total() const { return total_; }
  uint64_t operator[](uint32_t k) const { return listed_.empty() ? log2_q56(k) : listed_[k]; }

 private:
  uint32_t total_;
  Vector<uint64_t> listed_;
};

// Shares out units among the symbols: each step takes the best unit or gives back the worst one.
// Units are ordered by gain, then by symbol; the optimum is the first ones in that order.
class Shares {
 public:
  Shares(Vector<uint32_t> weights, const Logs& log2) : weights_(std::move(weights)), log2_(log2) {
    const uint32_t total = log2.total();
    const uint64_t sum = std::accumulate(weights_.begin(), weights_.end(), uint64_t{0});
    for (const uint32_t w : weights_) {
      shares_.push_back(std::max<uint32_t>(1, static_cast<uint32_t>(uint64_t{w} * total / sum)));
    }
    for (uint32_t s = 0; s < weights_.size(); ++s) push(s);
    uint64_t given = std::accumulate(shares_.begin(), shares_.end(), uint64_t{0});
    for (; given < total; ++given) change(next().symbol, +1);
    for (; given > total; --given) change(last().symbol, -1);
    while (precedes(next(), last())) {
      const uint32_t to = next().symbol, from = last().symbol;
      change(from, -1);
      change(to, +1);
    }
  }

  const Vector<uint32_t>& result() const { return shares_; }

 private:
  struct Unit {
    uint128 gain;
    uint32_t symbol;
    uint32_t share;  // of the symbol before the unit; an entry of a queue is stale if it has moved
  };
  static bool precedes(const Unit& a, const Unit& b) {
    return a.gain != b.gain ? a.gain > b.gain : a.symbol < b.symbol;
  }
  struct Later {
    bool operator()(const Unit& a, const Unit& b) const { return precedes(b, a); }
  };
  struct Earlier {
    bool operator()(const Unit& a, const Unit& b) const { return precedes(a, b); }
  };

  Unit unit(uint32_t symbol, uint32_t share) const {
    const uint64_t step = share < log2_.total() ? log2_[share + 1] - log2_[share] : 0;
    return {uint128{weights_[symbol]} * step, symbol, share};
  }

  void push(uint32_t symbol) {
    next_.push(unit(symbol, shares_[symbol]));
    if (shares_[symbol] > 1) last_.push(unit(symbol, shares_[symbol] - 1));
  }

  void change(uint32_t symbol, int by) {
    shares_[symbol] += static_cast<uint32_t>(by);
    push(symbol);
  }

  // The best unit not given, and the worst given one (with an endless gain if none can be taken).
  Unit next() {
    while (next_.top().share != shares_[next_.top().symbol]) next_.pop();
    return next_.top();
  }
  Unit last() {
    while (!last_.empty() && last_.top().share + 1 != shares_[last_.top().symbol]) last_.pop();
    return last_.empty() ? Unit{~uint128{0}, 0, 0} : last_.top();
  }

  Vector<uint32_t> weights_, shares_;
  const Logs& log2_;
  std::priority_queue<Unit, Vector<Unit>, Later> next_;
  std::priority_queue<Unit, Vector<Unit>, Earlier> last_;
};

// The symbols that get an interval of their own, in order.
Vector<uint32_t> kept_symbols(const Vector<uint32_t>& weights, int precision, bool escape) {
  const uint64_t sum = std::accumulate(weights.begin(), weights.end(), uint64_t{0});
  const uint64_t most = (uint64_t{1} << precision) - 1;
  uint64_t bits = 0;  // a slot costs all others log2(e) / 2^P bits, an escape the symbol so many
  while (weights.size() >> bits != 0) ++bits;
  const auto heaviest = std::max_element(weights.begin(), weights.end());
  Vector<uint32_t> kept;
  for (auto w = weights.begin(); w != weights.end(); ++w) {
    if (!escape || w == heaviest || (2 * bits * *w) << precision >= 3 * sum) {
      kept.push_back(static_cast<uint32_t>(w - weights.begin()));
    }
  }
  if (escape && kept.size() > most) {
    std::stable_sort(kept.begin(), kept.end(),
                     [&](uint32_t a, uint32_t b) { return weights[a] > weights[b]; });
    kept.resize(most);
    std::sort(kept.begin(), kept.end());
  }
  return kept;
}

// Sums over bins to u32 weights: the largest gets 31 bits.
Vector<uint32_t> to_weights(const Vector<uint64_t>& sums) {
  const uint64_t largest = *std::max_element(sums.begin(), sums.end());
  int shift = 0;
  while (largest >> shift >> 31 != 0) ++shift;
  Vector<uint32_t> weights;
  for (const uint64_t sum : sums) weights.push_back(static_cast<uint32_t>(sum >> shift));
  return weights;
}

// exp2 of minus a Q32 number that may be far too large.
uint64_t exp2_neg_q62(uint128 y) {
  return (y >> 38) != 0 ? 0 : otcuda::exp2_neg_q62(static_cast<uint64_t>(y));
}

[[noreturn]] void refuse(const std::string& what) { throw ArgumentError(what); }

void require_in(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return;
  refuse(std::string(name) + " is " + std::to_string(value) + ", outside " + std::to_string(low) +
         " .. " + std::to_string(high));
}

std::string name_of(int64_t table) { return "table " + std::to_string(table); }

}  // namespace

void quantise(const uint32_t* weights, int64_t T, int64_t n, int precision, bool escape,
              uint32_t* frequencies, Poll& poll) {
  require_in("precision", precision, 1, kTablePrecisionMax);
  require_in("the number of symbols", n, 1, escape ? kTableSymbolsMax : int64_t{1} << precision);
  const Logs log2((uint32_t{1} << precision) - (escape ? 1 : 0));
  std::fill(frequencies, frequencies + T * n, 0);
  for (int64_t t = 0; t < T; ++t, weights += n, frequencies += n) {
    poll(double(t) / double(T));
    const Vector<uint32_t> row(weights, weights + n);  // nobody changes this one meanwhile
    if (std::count(row.begin(), row.end(), 0u) == n) refuse(name_of(t) + " has no weight above 0");
    const Vector<uint32_t> kept = kept_symbols(row, precision, escape);
    Vector<uint32_t> kept_weights;
    for (const uint32_t s : kept) kept_weights.push_back(row[s]);
    const Shares shares(std::move(kept_weights), log2);
    for (size_t k = 0; k < kept.size(); ++k) frequencies[kept[k]] = shares.result()[k];
  }
}

Vector<uint32_t> gaussian_weights(uint64_t scale_q16, int32_t low, int64_t n) {
  Vector<uint64_t> sums(n, 0);
  for (int64_t i = 0; i < n; ++i) {
    for (int j = 0; j < kMidpoints; ++j) {
      const int64_t x = (low + i) * 65536 - 32768 + (2 * j + 1) * (32768 / kMidpoints);  // Q16
      const uint128 z = (uint128{static_cast<uint64_t>(x < 0 ? -x : x)} << 16) / scale_q16;
      if ((z >> 23) == 0) sums[i] += exp2_neg_q62((z * z * kHalfLog2E) >> 32) >> 6;
    }
  }
  return to_weights(sums);
}

Vector<uint32_t> laplace_weights(uint64_t scale_q16, int32_t low, int64_t n) {
  const auto tail = [&](int64_t halves) {  // e^-(halves / 2 scale)
    return exp2_neg_q62((uint128{static_cast<uint64_t>(halves)} << 15) * kLog2E / scale_q16);
  };
  Vector<uint64_t> sums;
  for (int64_t s = low; s < low + n; ++s) {
    const int64_t distance = s < 0 ? -s : s;
    sums.push_back(s == 0 ? 2 * (tail(0) - tail(1))
                          : tail(2 * distance - 1) - tail(2 * distance + 1));
  }
  return to_weights(sums);
}

Tables::Tables(const uint32_t* frequencies, int64_t T, int64_t n, int32_t low, int precision,
               bool escape)
    : count_(T), symbols_(n), low_(low), precision_(precision), escape_(escape) {
  require_in("precision", precision, 1, kTablePrecisionMax);
  require_in("the number of tables", T, 1, kTableCountMax);
  require_in("the number of symbols", n, 1, kTableSymbolsMax);
  require_in("tables times symbols", T * n, 1, kTableEntriesMax);
  require_in("the last symbol", low + n - 1, low, INT32_MAX);
  full_ = uint32_t{1} << precision;
  if (wide()) {
    list_starts(frequencies);
    return;
  }
  // The look-up grows with the tables; 2^14 entries of a few small ones stay in the first cache.
  bucket_bits_ = std::min(precision, 12);
  while (bucket_bits_ > 0 && T << bucket_bits_ > std::max<int64_t>(T * n, 1 << 14)) --bucket_bits_;
  intervals_.reserve(T * n + 1);
  kept_begin_.reserve(T);
  buckets_.resize((static_cast<size_t>(T) << bucket_bits_) + 1);
  for (int64_t t = 0; t < T; ++t) index_table(frequencies + t * n, t);
  intervals_.push_back(0);
}

uint32_t Tables::total() const { return full_ - (escape_ ? 1 : 0); }

void Tables::list_starts(const uint32_t* frequencies) {
  starts_.reserve(static_cast<size_t>(count_) * static_cast<size_t>(symbols_ + 1));
  for (int64_t t = 0; t < count_; ++t) {
    uint32_t start = 0;
    for (int64_t s = 0; s < symbols_; ++s) {
      starts_.push_back(start);
      start += checked(frequencies[t * symbols_ + s], start, t);
    }
    check_sum(start, t);
    starts_.push_back(start);
  }
}

Tables::Found Tables::find_wide(uint32_t table, uint32_t slot) const {
  const uint32_t* begin = starts(table);
  // The last start that is not above the slot: symbols of frequency 0 in front of it are passed.
  const uint32_t* at = std::upper_bound(begin, begin + symbols_, slot) - 1;
  return {static_cast<uint32_t>(at - begin), at[0], at[1] - at[0]};
}

uint32_t Tables::checked(uint32_t frequency, uint32_t start, int64_t table) const {
  if (frequency == 0 && !escape_) refuse(name_of(table) + " has a frequency of 0 but no escape");
  if (frequency > total() - start) {
    refuse(name_of(table) + " sums to more than " + std::to_string(total()));
  }
  return frequency;
}

void Tables::check_sum(uint32_t sum, int64_t table) const {
  if (sum == total()) return;
  refuse(name_of(table) + " sums to " + std::to_string(sum) + ", not " + std::to_string(total()));
}

void Tables::index_table(const uint32_t* frequencies, int64_t table) {
  uint16_t* const buckets = &buckets_[static_cast<size_t>(table) << bucket_bits_];
  const int shift = precision_ - bucket_bits_;
  const size_t begin = kept_.size();
  kept_begin_.push_back(static_cast<uint32_t>(begin));
  uint32_t start = 0;
  for (int64_t s = 0; s < symbols_; ++s) {
    const uint32_t f = checked(frequencies[s], start, table);
    intervals_.push_back((start & 0xffff) | f << 16);
    if (f == 0) continue;
    for (uint32_t b = (start + (1u << shift) - 1) >> shift; b << shift < start + f; ++b) {
      buckets[b] = static_cast<uint16_t>(kept_.size() - begin);
    }
    kept_.push_back((start & 0xffff) | static_cast<uint32_t>(s) << 16);
    start += f;
  }
  check_sum(start, table);
  kept_.push_back(total() & 0xffff);
}

// Whether an entry's fields fit a word.
bool Tables::narrow() const { return precision_ <= kDirectPrecisionMax && symbols_ <= 256; }

const uint32_t* Tables::direct() const {
  if (!narrow()) return nullptr;
  std::call_once(direct_made_, [this] {
    direct_.resize(static_cast<size_t>(count_) << precision_);
    for (int64_t t = 0; t < count_; ++t) fill_direct(static_cast<uint32_t>(t));
  });
  return direct_.data();
}

void Tables::fill_direct(uint32_t table) const {
  uint32_t* slots = &direct_[static_cast<size_t>(table) << precision_];
  for (uint32_t s = 0; s < symbols_; ++s) {
    const uint32_t f = interval(table, s).frequency;
    for (uint32_t rank = 0; rank < f; ++rank) *slots++ = s | (f - 1) << 8 | rank << 20;
  }
  if (escape_) *slots = 0;
}

const Tables::Slot* Tables::slots() const {
  if (precision_ > kDirectPrecisionMax) return nullptr;
  std::call_once(slots_made_, [this] {
    slots_.resize((static_cast<size_t>(count_) << precision_) + 1, Slot{1, 0, 0, 0});
    Slot* to = slots_.data();
    for (int64_t t = 0; t < count_; ++t) {
      for (uint32_t s = 0; s < symbols_; ++s) {
        const auto f = static_cast<uint16_t>(interval(static_cast<uint32_t>(t), s).frequency);
        for (uint16_t rank = 0; rank < f; ++rank) {
          *to++ = {f, rank, static_cast<uint16_t>(s), 0};
        }
      }
      if (escape_) ++to;
    }
  });
  return slots_.data();
}

const uint16_t* Tables::places() const {
  if (!narrow() || kept_.size() > 65536) return nullptr;  // kept_ has one more a table, too
  std::call_once(places_made_, [this] {
    entries_.reserve(kept_.size());
    places_.resize(static_cast<size_t>(count_) << precision_);
    for (int64_t t = 0; t < count_; ++t) fill_places(static_cast<uint32_t>(t));
  });
  return places_.data();
}

void Tables::fill_places(uint32_t table) const {
  uint16_t* slots = &places_[static_cast<size_t>(table) << precision_];
  uint32_t start = 0;
  for (uint32_t s = 0; s < symbols_; ++s) {
    const uint32_t f = interval(table, s).frequency;
    if (f == 0) continue;
    slots = std::fill_n(slots, f, static_cast<uint16_t>(entries_.size()));
    entries_.push_back(s | (f - 1) << 8 | start << 20);
    start += f;
  }
  if (!escape_) return;
  *slots = static_cast<uint16_t>(entries_.size());
  entries_.push_back(start << 20);
}

}  // namespace otcuda::cpu
