// SPDX-License-Identifier: Apache-2.0
#include "cpu/range64.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>

#include "common/check.h"
#include "common/range64_symbols.h"
#include "common/threads.h"
#include "cpu/symbol_runs.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kFastSlots = 1 << 12;
constexpr int64_t kDirectSlots = 1 << 14;
constexpr int64_t kSumGrain = 1 << 16;

int32_t get_escaped(RangeDecoder& decoder, const Tables& tables, uint32_t table) {
  return range64_get_escaped(decoder, tables.low(), tables.symbols(), [&](uint32_t symbol) {
    return tables.interval(table, symbol).frequency != 0;
  });
}

// put(value) for every value, after allowed(value) held for all of them.
template <class Allowed, class Put>
void put_each(const TensorView& values, const std::string& text, const Allowed& allowed,
              const Put& put) {
  Vector<int64_t> checked(values.size());
  for_runs(values.size(), [&](int64_t begin, int64_t n) {
    load(values, begin, n, checked.data() + begin);
    for (int64_t i = begin; i < begin + n; ++i) {
      if (!allowed(checked[i])) refuse("values", i, checked[i], text);
    }
  });
  for (int64_t i = 0; i < values.size(); ++i) put(i, checked[i]);
}

template <class Get>
void get_each(RangeDecoder& decoder, const TensorView& values, const Get& get) {
  for (int64_t i = 0; i < values.size(); ++i) values.write<int64_t>()[i] = get(i);
  if (decoder.corrupt()) throw CorruptDataError("the message holds a step that no encoder writes");
}

Vector<int64_t> probabilities(const TensorView& p1, int64_t length, int P) {
  Vector<int64_t> checked(p1.size());
  OTCUDA_CHECK(p1.size() == length, "p1 and values differ in length");
  for_runs(p1.size(), [&](int64_t begin, int64_t n) {
    load(p1, begin, n, checked.data() + begin);
    for (int64_t i = begin; i < begin + n; ++i) {
      if (checked[i] >= 1 && checked[i] >> P == 0) continue;
      refuse("p1", i, checked[i], span_text(1, (int64_t{1} << P) - 1));
    }
  });
  return checked;
}

// The symbols first, first + lanes, ... of a run.
void put_run(Encoder& encoder, const Tables& tables, const Run& run, int64_t first, int64_t n,
             int lanes) {
  const int P = tables.precision();
  const int64_t low = tables.low(), alphabet = tables.symbols();
  for (int64_t i = first; i < n; i += lanes) {
    const int64_t offset = run.symbol[i] - low;
    if (static_cast<uint64_t>(offset) < static_cast<uint64_t>(alphabet)) {
      const auto at = tables.interval(run.table[i], static_cast<uint32_t>(offset));
      if (at.frequency != 0) {
        encoder.put(at.start, at.frequency, P);
        continue;
      }
    }
    encoder.put(tables.escape_slot(), 1, P);
    range64_put_escaped(encoder, offset, tables.symbols());
  }
}

struct Entry {
  uint32_t symbol, frequency, rank;
};

// Look-ups take any slot: but for the quickest they cut it to `last`, 2^P - 1, which they hold so
// that it stays in a register.
//
// A load for each number: no shift or mask between the division of a step and the one of the next.
template <int kPrecision>
struct SlotLookup {
  const Tables::Slot* slots;
  const Tables& tables;
  uint32_t last;

  int precision() const { return kPrecision != 0 ? kPrecision : tables.precision(); }
  // kPrecision is for one table, with an entry for the slot that no encoder writes.
  Entry operator()(uint32_t table, uint64_t slot) const {
    const uint64_t row = static_cast<uint64_t>(table) << precision();
    const auto& at = slots[kPrecision != 0 ? slot : row | (slot & last)];
    return {at.symbol, at.frequency, at.rank};
  }
};

// One load a slot. kPrecision, if not 0, is that of the tables.
template <int kPrecision>
struct DirectLookup {
  const uint32_t* direct;
  const Tables& tables;
  uint32_t last;

  int precision() const { return kPrecision != 0 ? kPrecision : tables.precision(); }
  Entry operator()(uint32_t table, uint64_t slot) const {
    const size_t row = static_cast<size_t>(table) << precision();
    const uint32_t e = direct[row | (slot & last)];
    return {e & 0xff, (e >> 8 & 0xfff) + 1, e >> 20};
  }
};

// A bucket and a walk: little memory, any table. The escape's slot gets what is in bounds.
struct BucketLookup {
  const Tables& tables;
  uint32_t last;

  int precision() const { return tables.precision(); }
  Entry operator()(uint32_t table, uint64_t any_slot) const {
    const uint32_t slot = static_cast<uint32_t>(any_slot) & last;
    if (tables.escape() && slot == last) return {0, 1, 0};
    const auto found = tables.find(table, slot);
    return {found.symbol, found.frequency, slot - found.start};
  }
};

// A lane's next symbol, near the end of its message or behind an escape.
template <class Lookup>
int32_t get_slowly(RangeDecoder& decoder, const Lookup& lookup, const Tables& tables,
                   uint32_t table) {
  const int P = tables.precision();
  const uint32_t slot = decoder.slot(P);
  if (tables.escape() && slot == tables.escape_slot()) {
    decoder.take(slot, 1, P);
    return get_escaped(decoder, tables, table);
  }
  const Entry found = lookup(table, slot);
  decoder.take(slot - found.rank, found.frequency, P);
  return static_cast<int32_t>(tables.low() + int64_t{found.symbol});
}

// What slots of 2^P - 1 and more stand for: an escape, or what no encoder writes.
template <int kLanes>
void settle(RangeDecoder* lanes, const uint64_t* slots, const Tables& tables, int64_t i, Run& run) {
  for (int k = 0; k < kLanes; ++k) {
    if (slots[k] >> tables.precision() != 0) lanes[k].reject();
    if (!tables.escape() || slots[k] != tables.escape_slot()) continue;
    run.symbol[i + k] = get_escaped(lanes[k], tables, run.table[i + k]);
  }
}

// The lanes take turns, so that their divisions overlap.
template <int kLanes, class Lookup>
void get_lanes(RangeDecoder* lanes, const Lookup& given, const Tables& tables, int64_t n,
               Run& run) {
  const Lookup lookup = given;
  const int P = lookup.precision();
  const uint64_t lift = tables.escape() ? 1 : 0;  // the escape's slot to 2^P
  const uint32_t low = static_cast<uint32_t>(tables.low());
  RangeDecoder local[kLanes];
  bool corrupt = false;  // then slots may be anything, and symbols mean nothing
  for (int k = 0; k < kLanes; ++k) {
    local[k] = lanes[k];
    corrupt |= local[k].corrupt();
  }
  for (int64_t i = 0; i < n && !corrupt;) {
    int64_t groups = (n - i) / kLanes;
    for (int k = 0; k < kLanes; ++k) groups = std::min(groups, local[k].room());
    const int64_t end = i + groups * kLanes;
    uint64_t slots[kLanes] = {}, met = 0;
    for (; i < end && met >> P == 0; i += kLanes) {
      met = 0;
#pragma GCC unroll 4
      for (int k = 0; k < kLanes; ++k) {
        const uint32_t table = run.table[i + k];
        run.symbol[i + k] = static_cast<int32_t>(
            low + local[k].template get_roomy<(kLanes > 1)>(
                      P, [&](uint64_t slot) { return lookup(table, slot); }, slots + k));
        met |= slots[k] + lift;
      }
    }
    if (groups > 0 && met >> P == 0) continue;
    RangeDecoder slow[kLanes];  // the others stay in registers
    for (int k = 0; k < kLanes; ++k) slow[k] = local[k];
    if (groups > 0) {
      settle<kLanes>(slow, slots, tables, i - kLanes, run);
    } else {
      for (int k = 0; k < kLanes && i < n; ++k, ++i) {
        run.symbol[i] = get_slowly(slow[k], lookup, tables, run.table[i]);
      }
    }
    for (int k = 0; k < kLanes; ++k) {
      local[k] = slow[k];
      corrupt |= local[k].corrupt();
    }
  }
  for (int k = 0; k < kLanes; ++k) lanes[k] = local[k];
}

template <class Lookup>
void get_run(Lanes<RangeDecoder> lanes, const Lookup& lookup, const Tables& tables, int64_t n,
             Run& run) {
  if (lanes.size() == 1) return get_lanes<1>(lanes.begin(), lookup, tables, n, run);
  if (lanes.size() == 2) return get_lanes<2>(lanes.begin(), lookup, tables, n, run);
  get_lanes<4>(lanes.begin(), lookup, tables, n, run);
}

}  // namespace

void range64_put(Lanes<Encoder> lanes, const Tables& tables, const TensorView& symbols,
                 const TensorView* index, Poll& poll) {
  Run run;
  for_runs(symbols.size(), [&](int64_t begin, int64_t n) {
    poll(double(begin) / double(symbols.size()));
    run.load_symbols(tables, symbols, begin, n);
    if (index != nullptr) run.load_index(tables, *index, begin, n);
    for (size_t lane = 0; lane < lanes.size(); ++lane) {
      Encoder local = std::move(lanes[lane]);  // its state lives in registers
      put_run(local, tables, run, static_cast<int64_t>(lane), n, static_cast<int>(lanes.size()));
      lanes[lane] = std::move(local);
    }
  });
}

void range64_get(Lanes<RangeDecoder> lanes, const Tables& tables, const TensorView* index,
                 const TensorView& symbols, Poll& poll) {
  // A look-up that leaves the first caches costs more than it saves, and so does one made in vain.
  const int64_t slots = tables.count() << tables.precision();
  const bool worth = slots <= kDirectSlots && symbols.size() * 4 >= slots;
  const Tables::Slot* fast = worth && slots <= kFastSlots ? tables.slots() : nullptr;
  const uint32_t* direct = worth && fast == nullptr ? tables.direct() : nullptr;
  const uint32_t last = (1u << tables.precision()) - 1;
  Run run;
  for_runs(symbols.size(), [&](int64_t begin, int64_t n) {
    poll(double(begin) / double(symbols.size()));
    if (index != nullptr) run.load_index(tables, *index, begin, n);
    if (fast != nullptr && tables.precision() == 12) {
      get_run(lanes, SlotLookup<12>{fast, tables, last}, tables, n, run);  // of one table
    } else if (fast != nullptr) {
      get_run(lanes, SlotLookup<0>{fast, tables, last}, tables, n, run);
    } else if (direct == nullptr) {
      get_run(lanes, BucketLookup{tables, last}, tables, n, run);
    } else if (tables.precision() != 12) {
      get_run(lanes, DirectLookup<0>{direct, tables, last}, tables, n, run);
    } else {
      get_run(lanes, DirectLookup<12>{direct, tables, last}, tables, n, run);
    }
    for (const RangeDecoder& decoder : lanes) {
      if (!decoder.corrupt()) continue;
      throw CorruptDataError("the message holds a step that no encoder writes");
    }
    run.store(begin, n, symbols);
  });
}

Vector<uint8_t> range64_join(Lanes<Encoder> lanes) {
  Vector<uint8_t> joined;
  Vector<Vector<uint8_t>> messages;
  for (Encoder& lane : lanes) messages.push_back(lane.finish());
  if (messages.size() == 1) return std::move(messages[0]);
  for (size_t lane = 0; lane + 1 < messages.size(); ++lane) {
    size_t length = messages[lane].size();
    for (; length >= 0x80; length >>= 7) joined.push_back(static_cast<uint8_t>(length | 0x80));
    joined.push_back(static_cast<uint8_t>(length));
  }
  for (const auto& message : messages) {
    joined.insert(joined.end(), message.begin(), message.end());
  }
  return joined;
}

Vector<RangeDecoder> range64_split(const uint8_t* data, size_t size, int lanes) {
  const uint8_t* const end = data + size;
  Vector<size_t> lengths;
  for (int lane = 0; lane + 1 < lanes; ++lane) {
    size_t length = 0;
    int shift = 0;
    while (data != end && shift < 28 && *data >= 0x80) {
      length |= static_cast<size_t>(*data++ & 0x7f) << shift;
      shift += 7;
    }
    const bool whole = data != end && *data < 0x80 && (*data != 0 || shift == 0);
    if (!whole) throw CorruptDataError("the lengths of the lanes are not written as they should");
    lengths.push_back(length | static_cast<size_t>(*data++) << shift);
  }
  Vector<RangeDecoder> decoders;
  for (const size_t length : lengths) {
    if (length > static_cast<size_t>(end - data)) {
      throw CorruptDataError("the lanes are longer than the message");
    }
    decoders.emplace_back(data, length);
    data += length;
  }
  decoders.emplace_back(data, static_cast<size_t>(end - data));
  return decoders;
}

void range64_check_symbols(const Tables& tables, const TensorView& symbols) {
  Run run;
  for_runs(symbols.size(),
           [&](int64_t begin, int64_t n) { run.load_symbols(tables, symbols, begin, n); });
}

void range64_check_index(const Tables& tables, const TensorView& index) {
  Run run;
  for_runs(index.size(),
           [&](int64_t begin, int64_t n) { run.load_index(tables, index, begin, n); });
}

void range64_put_bits(Encoder& encoder, const TensorView& values, int k) {
  put_each(
      values, span_text(0, static_cast<int64_t>((uint64_t{1} << k) - 1)),
      [&](int64_t v) { return v >= 0 && v >> k == 0; },
      [&](int64_t, int64_t v) { encoder.bits(static_cast<uint64_t>(v), k); });
}

void range64_put_uniform(Encoder& encoder, const TensorView& values, uint32_t count) {
  put_each(
      values, span_text(0, int64_t{count} - 1), [&](int64_t v) { return v >= 0 && v < count; },
      [&](int64_t, int64_t v) { encoder.uniform(static_cast<uint32_t>(v), count); });
}

void range64_put_bit(Encoder& encoder, const TensorView& values, const TensorView& p1, int P) {
  const Vector<int64_t> p = probabilities(p1, values.size(), P);
  put_each(
      values, "0 or 1", [](int64_t v) { return v == 0 || v == 1; },
      [&](int64_t i, int64_t v) { encoder.bit(v == 1, static_cast<uint32_t>(p[i]), P); });
}

void range64_put_exp_golomb(Encoder& encoder, const TensorView& values) {
  put_each(
      values, "0 or more", [](int64_t v) { return v >= 0; },
      [&](int64_t, int64_t v) { encoder.exp_golomb(static_cast<uint64_t>(v)); });
}

void range64_get_bits(RangeDecoder& decoder, const TensorView& values, int k) {
  get_each(decoder, values, [&](int64_t) { return static_cast<int64_t>(decoder.bits(k)); });
}

void range64_get_uniform(RangeDecoder& decoder, const TensorView& values, uint32_t count) {
  get_each(decoder, values, [&](int64_t) { return int64_t{decoder.uniform(count)}; });
}

void range64_get_bit(RangeDecoder& decoder, const TensorView& values, const TensorView& p1, int P) {
  const Vector<int64_t> p = probabilities(p1, values.size(), P);
  get_each(decoder, values,
           [&](int64_t i) { return int64_t{decoder.bit(static_cast<uint32_t>(p[i]), P)}; });
}

void range64_get_exp_golomb(RangeDecoder& decoder, const TensorView& values) {
  get_each(decoder, values, [&](int64_t) {
    const uint64_t value = decoder.exp_golomb();
    if (value >> 63 != 0) decoder.reject();
    return static_cast<int64_t>(value & INT64_MAX);
  });
}

uint32_t symbol_sum(const TensorView& symbols) {
  constexpr double kNanoseconds = 0.1;  // a symbol
  const auto sum = symbol_kernels().sum[integer_type(symbols.dtype)];
  const int64_t n = symbols.size();
  if (n <= kSumGrain) return sum(symbols.data, n, 0);
  std::atomic<uint32_t> total{0};  // in any order, so any number of threads find the same
  parallel_for(
      n, kSumGrain,
      [&](int64_t from, int64_t to) {
        total += sum(element(symbols, from), to - from, static_cast<uint32_t>(from));
      },
      nullptr, threads_for(kNanoseconds * double(n)));
  return total;
}

}  // namespace otcuda::cpu
