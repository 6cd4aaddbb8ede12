// SPDX-License-Identifier: Apache-2.0
#include "cpu/compat64.h"

#include <algorithm>
#include <string>

#include "common/check.h"
#include "common/compat64.h"

namespace otcuda::cpu {
namespace {

constexpr uint32_t kTotal = uint32_t{1} << kCompatPrecision;
constexpr uint32_t kPartMax = (uint32_t{1} << kCompatPartBits) - 1;
constexpr int kPartsMax = 9;  // of a number below 2^36

void put_part(uint32_t value, Vector<CompatStep>* steps) {
  steps->push_back({static_cast<uint16_t>(value), 0, true});
}

void put_outlier(uint64_t raw, Vector<CompatStep>* steps) {
  uint32_t parts = 0;
  while (raw >> (parts * kCompatPartBits) != 0) ++parts;
  put_part(parts, steps);  // at most 9, so that one is enough
  for (uint32_t k = 0; k < parts; ++k) {
    put_part(static_cast<uint32_t>(raw >> (k * kCompatPartBits)) & kPartMax, steps);
  }
}

}  // namespace

CompatTables::CompatTables(const int32_t* cdf, int64_t T, int64_t width, const int32_t* sizes,
                           const int32_t* offsets)
    : count_(T),
      width_(width),
      cdf_(cdf, cdf + T * width),
      sizes_(sizes, sizes + T),
      offsets_(offsets, offsets + T) {
  for (int64_t t = 0; t < T; ++t) {
    const int32_t size = sizes_[t];
    OTCUDA_CHECK(size >= 2 && size <= width, "cdf_sizes[" + std::to_string(t) + "] is " +
                                                 std::to_string(size) + ", expected 2 .. " +
                                                 std::to_string(width));
    const int32_t* row = &cdf_[t * width];
    bool good = row[0] == 0 && row[size - 1] == int32_t{kTotal};
    for (int32_t s = 1; s < size; ++s) good &= row[s - 1] < row[s];
    OTCUDA_CHECK(good, "cdfs[" + std::to_string(t) + "] does not rise from 0 to 65536");
  }
}

CompatTables::Row CompatTables::row(int32_t index) const {
  OTCUDA_CHECK(index >= 0 && index < count_, "an index is " + std::to_string(index) +
                                                 ", expected 0 .. " + std::to_string(count_ - 1));
  return {cdf_.data() + index * width_, sizes_[index] - 2, offsets_[index]};
}

void compat64_push(const CompatTables& tables, const int32_t* symbols, const int32_t* index,
                   int64_t n, Vector<CompatStep>* steps) {
  for (int64_t i = 0; i < n; ++i) tables.row(index[i]);  // before anything is kept
  for (int64_t i = 0; i < n; ++i) {
    const auto row = tables.row(index[i]);
    const int64_t value = int64_t{symbols[i]} - row.offset;
    const bool outside = value < 0 || value >= row.sentinel;
    const int64_t s = outside ? row.sentinel : value;
    steps->push_back({static_cast<uint16_t>(row.cdf[s]),
                      static_cast<uint16_t>(row.cdf[s + 1] - row.cdf[s] - 1), false});
    if (!outside) continue;
    put_outlier(static_cast<uint64_t>(value < 0 ? -2 * value - 1 : 2 * (value - row.sentinel)),
                steps);
  }
}

Vector<uint8_t> compat64_flush(const Vector<CompatStep>& steps) {
  Vector<uint32_t> words;
  uint64_t x = kCompatLow;
  for (size_t i = steps.size(); i-- > 0;) {
    const CompatStep step = steps[i];
    const int bits = step.part ? kCompatPartBits : kCompatPrecision;
    const uint64_t f = step.last + uint64_t{1};
    // Parts are held to the bound of the table's precision: it is how that encoder does it.
    const uint64_t widened = step.part ? uint64_t{1} << (kCompatPrecision - kCompatPartBits) : f;
    if (x >= ((kCompatLow >> kCompatPrecision) << 32) * widened) {
      words.push_back(static_cast<uint32_t>(x));
      x >>= 32;
    }
    x = ((x / f) << bits) + x % f + step.start;
  }
  words.push_back(static_cast<uint32_t>(x >> 32));
  words.push_back(static_cast<uint32_t>(x));
  Vector<uint8_t> bytes;
  bytes.reserve(4 * words.size());
  for (size_t k = words.size(); k-- > 0;) {
    for (int shift = 0; shift < 32; shift += 8) {
      bytes.push_back(static_cast<uint8_t>(words[k] >> shift));
    }
  }
  return bytes;
}

CompatDecoder::CompatDecoder(const uint8_t* data, size_t size) : next_(data), end_(data + size) {
  state_ = word();
  state_ |= uint64_t{word()} << 32;
}

uint32_t CompatDecoder::word() {
  if (end_ - next_ < 4) throw CorruptDataError("the message ends early");
  uint32_t value = 0;
  for (int k = 0; k < 4; ++k) value |= uint32_t{*next_++} << 8 * k;
  return value;
}

uint32_t CompatDecoder::part() {
  const uint32_t value = static_cast<uint32_t>(state_) & kPartMax;
  state_ >>= kCompatPartBits;
  if (state_ < kCompatLow) state_ = state_ << 32 | word();
  return value;
}

int64_t CompatDecoder::outlier(int32_t sentinel) {
  const uint32_t parts = part();
  if (parts > kPartsMax) throw CorruptDataError("a symbol lies outside int32");
  uint64_t raw = 0;
  for (uint32_t k = 0; k < parts; ++k) raw |= uint64_t{part()} << (k * kCompatPartBits);
  const int64_t half = static_cast<int64_t>(raw >> 1);
  return (raw & 1) != 0 ? -half - 1 : half + sentinel;
}

void CompatDecoder::get(const CompatTables& tables, const int32_t* index, int64_t n,
                        int32_t* symbols) {
  for (int64_t i = 0; i < n; ++i) {
    const auto row = tables.row(index[i]);
    const int32_t slot = static_cast<int32_t>(state_ & (kTotal - 1));
    const int32_t* above = std::upper_bound(row.cdf + 1, row.cdf + row.sentinel + 1, slot);
    int64_t value = above - row.cdf - 1;
    const uint64_t f = static_cast<uint64_t>(above[0] - above[-1]);
    state_ = f * (state_ >> kCompatPrecision) + static_cast<uint64_t>(slot - above[-1]);
    if (state_ < kCompatLow) state_ = state_ << 32 | word();
    if (value == row.sentinel) value = outlier(row.sentinel);
    value += row.offset;
    if (value < INT32_MIN || value > INT32_MAX) {
      throw CorruptDataError("a symbol lies outside int32");
    }
    symbols[i] = static_cast<int32_t>(value);
  }
}

}  // namespace otcuda::cpu
