// SPDX-License-Identifier: Apache-2.0
// rans32 for any width of lanes. A level's Lanes holds kWidth states in a Vector; Mask is what its
// comparisons give. Words of lanes in one vector are adjacent, so one shuffle moves them.
#pragma once

#include "common/rans32.h"
#include "cpu/rans32_kernels.h"

namespace otcuda::cpu {
namespace {

// (x / f) 2^P + x mod f: by a float quotient, off by at most one below 2^22, then put right.
template <class Lanes>
OTCUDA_HD typename Lanes::Vector divided(typename Lanes::Vector x, typename Lanes::Vector f,
                                         typename Lanes::Vector full, int P) {
  using Vector = typename Lanes::Vector;
  const Vector q = Lanes::quotient(x, Lanes::reciprocal(f));
  const Vector r = Lanes::sub(x, Lanes::mul(q, f)), unit = Lanes::sub(full, f);  // one more of q
  const Vector sum = Lanes::add(Lanes::shift_left(q, P), r);
  const Vector less = Lanes::where(Lanes::negative(r), unit);
  return Lanes::sub(Lanes::add(sum, Lanes::unless(Lanes::less(r, f), unit)), less);
}

// Where the intervals of a run's symbols stand.
template <class Lanes>
OTCUDA_HD void find_places(const RansEncodeRun& run, uint32_t* place) {
  using Vector = typename Lanes::Vector;
  const Vector low = Lanes::fill(static_cast<uint32_t>(run.low));
  const Vector alphabet = Lanes::fill(run.alphabet), outside = Lanes::fill(run.outside);
  for (int64_t i = 0; i < run.groups * kRansLanes; i += Lanes::kWidth) {
    const auto* symbol = reinterpret_cast<const uint32_t*>(run.symbol + i);
    const Vector offset = Lanes::sub(Lanes::load(symbol), low);
    const Vector row = Lanes::mul(Lanes::load_half(run.table + i), alphabet);
    const auto inside = Lanes::below(offset, alphabet);
    Lanes::store(place + i, Lanes::select(inside, Lanes::add(row, offset), outside));
  }
}

// The intervals of a group. One by one: a gather takes twice as long, and these loads do not wait
// for the states of the groups before.
template <class Lanes>
OTCUDA_HD void fetch_group(const uint32_t* intervals, const uint32_t* place, uint32_t* fetched) {
#pragma GCC unroll 16
  for (int k = 0; k < kRansLanes; k += 2) {
    Lanes::store_two(fetched + k, intervals[place[k]], intervals[place[k + 1]]);
  }
}

template <class Lanes>
uint16_t* encode_groups(const RansEncodeRun& given) {
  using Vector = typename Lanes::Vector;
  constexpr int kWidth = Lanes::kWidth, kVectors = kRansLanes / kWidth;
  const RansEncodeRun run = given;  // its pointers stay in registers
  const int P = run.precision;
  const Vector full = Lanes::fill(1u << P), zero = Lanes::fill(0);
  const Vector instead_start = Lanes::fill(run.escape ? (1u << P) - 1 : 0);
  const Vector instead = Lanes::fill(run.escape ? 1 : 65536);
  constexpr int kAhead = 4;  // groups between a fetch and its use
  alignas(64) uint32_t place[kRansRun];
  alignas(64) uint32_t fetched[kAhead][kRansLanes];
  find_places<Lanes>(run, place);
  for (int64_t g = run.groups; g-- > 0 && g >= run.groups - kAhead;) {
    fetch_group<Lanes>(run.intervals, place + g * kRansLanes, fetched[g % kAhead]);
  }
  Vector x[kVectors];
  for (int k = 0; k < kVectors; ++k) x[k] = Lanes::load(run.state + k * kWidth);
  uint16_t* words = run.words;
  for (int64_t g = run.groups; g-- > 0;) {
    uint32_t escaped = 0;
    const uint32_t* const group = fetched[g % kAhead];
#pragma GCC unroll 4
    for (int k = kVectors - 1; k >= 0; --k) {
      const Vector interval = Lanes::load(group + k * kWidth);
      Vector f = Lanes::shift_right(interval, 16);
      const auto none = Lanes::equal(f, zero);
      const Vector c = Lanes::select(none, instead_start, Lanes::low_half(interval));
      f = Lanes::select(none, instead, f);
      escaped |= Lanes::bits(none) << (k * kWidth);
      const auto fits = Lanes::less(Lanes::shift_right(x[k], 32 - P), f);
      words = Lanes::emit(words, fits, x[k]);
      x[k] = Lanes::select(fits, x[k], Lanes::shift_right(x[k], 16));
      x[k] = Lanes::add(divided<Lanes>(x[k], f, full, P), c);
    }
    run.escaped[g] = run.escape ? escaped : 0;
    if (g < kAhead) continue;
    fetch_group<Lanes>(run.intervals, place + (g - kAhead) * kRansLanes, fetched[g % kAhead]);
  }
  for (int k = 0; k < kVectors; ++k) Lanes::store(run.state + k * kWidth, x[k]);
  return words;
}

template <class Lanes>
struct RansFound {
  typename Lanes::Vector symbol, frequency, rank;
};

template <class Lanes>
OTCUDA_HD RansFound<Lanes> find_direct(const RansLookup& lookup, typename Lanes::Vector table,
                                       typename Lanes::Vector slot) {
  const auto e =
      Lanes::gather(lookup.direct, Lanes::either(Lanes::shift_left(table, lookup.precision), slot));
  const auto f = Lanes::both(Lanes::shift_right(e, 8), Lanes::fill(0xfff));
  return {Lanes::both(e, Lanes::fill(0xff)), Lanes::add(f, Lanes::fill(1)),
          Lanes::shift_right(e, 20)};
}

// Two loads, of half the memory: what many tables need, so that they stay in the second cache.
template <class Lanes>
OTCUDA_HD RansFound<Lanes> find_by_place(const RansLookup& lookup, typename Lanes::Vector table,
                                         typename Lanes::Vector slot) {
  const auto at = Lanes::either(Lanes::shift_left(table, lookup.precision), slot);
  const auto e = Lanes::gather_through(lookup.places, lookup.entries, at);
  const auto f = Lanes::both(Lanes::shift_right(e, 8), Lanes::fill(0xfff));
  return {Lanes::both(e, Lanes::fill(0xff)), Lanes::add(f, Lanes::fill(1)),
          Lanes::sub(slot, Lanes::shift_right(e, 20))};
}

enum class Find { direct, place, bucket };

// From the first kept symbol of the slot's bucket onwards; the escape's slot walks nowhere.
template <class Lanes>
OTCUDA_HD RansFound<Lanes> find_by_bucket(const RansLookup& lookup, typename Lanes::Vector table,
                                          typename Lanes::Vector slot,
                                          typename Lanes::Mask is_escape) {
  using Vector = typename Lanes::Vector;
  const int shift = lookup.precision - lookup.bucket_bits;
  const Vector bucket =
      Lanes::add(Lanes::shift_left(table, lookup.bucket_bits), Lanes::shift_right(slot, shift));
  Vector at = Lanes::add(Lanes::gather(lookup.kept_begin, table),
                         Lanes::gather_half(lookup.buckets, bucket));
  const Vector one = Lanes::fill(1);
  Vector kept, f, rank;
  for (;;) {
    kept = Lanes::gather(lookup.kept, at);
    const Vector next = Lanes::gather(lookup.kept, Lanes::add(at, one));
    f = Lanes::low_half(Lanes::sub(next, kept));
    f = Lanes::select(Lanes::equal(f, Lanes::fill(0)), Lanes::fill(65536), f);
    rank = Lanes::sub(slot, Lanes::low_half(kept));
    const auto there = Lanes::any(is_escape, Lanes::less(rank, f));
    if (Lanes::all(there)) break;
    at = Lanes::select(there, at, Lanes::add(at, one));
  }
  const Vector zero = Lanes::fill(0);
  return {Lanes::select(is_escape, zero, Lanes::shift_right(kept, 16)),
          Lanes::select(is_escape, one, f), Lanes::select(is_escape, zero, rank)};
}

// One group of one run, without the words. Returns the bits of the escaped lanes.
template <class Lanes, Find kFind>
OTCUDA_HD uint32_t pop_group(const RansLookup& lookup, const RansDecodeRun& run, int64_t group,
                             typename Lanes::Vector* x) {
  using Vector = typename Lanes::Vector;
  constexpr int kWidth = Lanes::kWidth;
  const Vector last = Lanes::fill((1u << lookup.precision) - 1);
  const Vector low = Lanes::fill(static_cast<uint32_t>(lookup.low));
  const Vector escape_slot = lookup.escape ? last : Lanes::fill(1u << 31);  // no slot is that
  uint32_t escaped = 0;
#pragma GCC unroll 4
  for (int k = 0; k < kRansLanes / kWidth; ++k) {
    const int64_t at = group * kRansLanes + k * kWidth;
    const Vector table = Lanes::load_half(run.table + at), slot = Lanes::both(x[k], last);
    const auto is_escape = Lanes::equal(slot, escape_slot);
    escaped |= Lanes::bits(is_escape) << (k * kWidth);
    const auto found = kFind == Find::direct ? find_direct<Lanes>(lookup, table, slot)
                       : kFind == Find::place
                           ? find_by_place<Lanes>(lookup, table, slot)
                           : find_by_bucket<Lanes>(lookup, table, slot, is_escape);
    Lanes::store(reinterpret_cast<uint32_t*>(run.symbol + at), Lanes::add(found.symbol, low));
    x[k] = Lanes::add(Lanes::mul(found.frequency, Lanes::shift_right(x[k], lookup.precision)),
                      found.rank);
  }
  return escaped;
}

template <class Lanes, Find kFind, int kRuns>
int64_t decode_groups(const RansLookup& given, RansDecodeRun* runs) {
  using Vector = typename Lanes::Vector;
  constexpr int kWidth = Lanes::kWidth, kVectors = kRansLanes / kWidth;
  const RansLookup lookup = given;  // what is copied stays in registers
  RansDecodeRun run[kRuns];
  Vector x[kRuns][kVectors];
  const uint8_t* words[kRuns];
  int64_t groups = runs[0].groups, g = 0;
  for (int j = 0; j < kRuns; ++j) {
    run[j] = runs[j];
    if (runs[j].groups < groups) groups = runs[j].groups;
    words[j] = runs[j].words;
    for (int k = 0; k < kVectors; ++k) x[j][k] = Lanes::load(runs[j].state + k * kWidth);
  }
  for (; g < groups; ++g) {
    bool roomy = true;
    for (int j = 0; j < kRuns; ++j) roomy &= run[j].end - words[j] >= 2 * kRansLanes;
    if (!roomy) break;
#pragma GCC unroll 4
    for (int j = 0; j < kRuns; ++j) {
      run[j].escaped[g] = pop_group<Lanes, kFind>(lookup, run[j], g, x[j]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < kRuns; ++j) {
#pragma GCC unroll 4
      for (int k = 0; k < kVectors; ++k) words[j] = Lanes::refill(words[j], &x[j][k]);
    }
  }
  for (int j = 0; j < kRuns; ++j) {
    runs[j].words = words[j];
    for (int k = 0; k < kVectors; ++k) Lanes::store(runs[j].state + k * kWidth, x[j][k]);
  }
  return g;
}

template <class Lanes, int kRuns>
int64_t decode_runs(const RansLookup& lookup, RansDecodeRun* runs) {
  if (lookup.direct != nullptr) return decode_groups<Lanes, Find::direct, kRuns>(lookup, runs);
  if (lookup.places != nullptr) return decode_groups<Lanes, Find::place, kRuns>(lookup, runs);
  return decode_groups<Lanes, Find::bucket, kRuns>(lookup, runs);
}

template <class Lanes>
RansKernels kernels_of() {
  return {&encode_groups<Lanes>, &decode_runs<Lanes, 1>, &decode_runs<Lanes, 2>};
}

}  // namespace
}  // namespace otcuda::cpu
