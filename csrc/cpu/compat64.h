// SPDX-License-Identifier: Apache-2.0
// Contract: csrc/common/compat64.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/alloc.h"

namespace otcuda::cpu {

// Cumulative tables, copied and checked.
class CompatTables {
 public:
  // ArgumentError where a row is not from 0, strictly rising, to 2^16. Sizes [T], offsets [T].
  CompatTables(const int32_t* cdf, int64_t T, int64_t width, const int32_t* sizes,
               const int32_t* offsets);

  struct Row {
    const int32_t* cdf;
    int32_t sentinel;  // the last symbol
    int32_t offset;
  };
  // ArgumentError for an index that is no table.
  Row row(int32_t index) const;

 private:
  int64_t count_, width_;
  Vector<int32_t> cdf_, sizes_, offsets_;
};

// A symbol of a table, or a part of 4 bits.
struct CompatStep {
  uint16_t start;
  uint16_t last;  // frequency - 1; 0 for a part
  bool part;
};

// Symbols wait here, first in first out of the decoder, since the encoder goes backwards.
void compat64_push(const CompatTables& tables, const int32_t* symbols, const int32_t* index,
                   int64_t n, Vector<CompatStep>* steps);
Vector<uint8_t> compat64_flush(const Vector<CompatStep>& steps);

// Reads a message in pieces. CorruptDataError where it ends early.
class CompatDecoder {
 public:
  CompatDecoder(const uint8_t* data, size_t size);
  void get(const CompatTables& tables, const int32_t* index, int64_t n, int32_t* symbols);

 private:
  uint32_t word();
  uint32_t part();
  int64_t outlier(int32_t sentinel);

  const uint8_t* next_;
  const uint8_t* end_;
  uint64_t state_;
};

}  // namespace otcuda::cpu
