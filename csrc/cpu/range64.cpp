// SPDX-License-Identifier: Apache-2.0
#include "cpu/range64.h"

#include <utility>

namespace otcuda::cpu {
namespace {

// What follows the escape: the symbol, uniform among n + 1; n stands for those outside the
// alphabet, told by their side and their distance.
void put_escaped(RangeEncoder& encoder, const Tables& tables, int32_t symbol) {
  const int64_t n = tables.symbols();
  const int64_t offset = int64_t{symbol} - tables.low();
  if (offset >= 0 && offset < n) {
    encoder.uniform(static_cast<uint32_t>(offset), static_cast<uint32_t>(n + 1));
    return;
  }
  encoder.uniform(static_cast<uint32_t>(n), static_cast<uint32_t>(n + 1));
  encoder.bits(offset < 0 ? 1 : 0, 1);
  encoder.exp_golomb(static_cast<uint64_t>(offset < 0 ? -1 - offset : offset - n));
}

int32_t get_escaped(RangeDecoder& decoder, const Tables& tables, uint32_t table) {
  const int64_t n = tables.symbols();
  int64_t offset = decoder.uniform(static_cast<uint32_t>(n + 1));
  if (offset < n) {
    // An encoder escapes only what has no interval.
    if (tables.interval(table, static_cast<uint32_t>(offset)).frequency != 0) decoder.reject();
    return static_cast<int32_t>(tables.low() + offset);
  }
  const bool below = decoder.bits(1) != 0;
  const uint64_t distance = decoder.exp_golomb();
  if (distance >> 32 == 0) {
    offset = below ? -1 - static_cast<int64_t>(distance) : n + static_cast<int64_t>(distance);
    const int64_t symbol = tables.low() + offset;
    if (symbol >= INT32_MIN && symbol <= INT32_MAX) return static_cast<int32_t>(symbol);
  }
  decoder.reject();
  return tables.low();
}

}  // namespace

void range64_put(RangeEncoder& encoder, const Tables& tables, const int32_t* symbols,
                 const uint32_t* index, size_t n) {
  const int P = tables.precision();
  const uint64_t alphabet = static_cast<uint64_t>(tables.symbols());
  RangeEncoder local = std::move(encoder);  // its state lives in registers
  for (size_t i = 0; i < n; ++i) {
    const uint64_t offset = static_cast<uint64_t>(int64_t{symbols[i]} - tables.low());
    if (offset < alphabet) {
      const auto at = tables.interval(index[i], static_cast<uint32_t>(offset));
      if (at.frequency != 0) {
        local.put(at.start, at.frequency, P);
        continue;
      }
    }
    local.put(tables.escape_slot(), 1, P);
    put_escaped(local, tables, symbols[i]);
  }
  encoder = std::move(local);
}

void range64_get(RangeDecoder& decoder, const Tables& tables, const uint32_t* index,
                 int32_t* symbols, size_t n) {
  const int P = tables.precision();
  RangeDecoder local = decoder;
  const uint32_t escape = tables.escape() ? tables.escape_slot() : UINT32_MAX;
  for (size_t i = 0; i < n; ++i) {
    const uint32_t slot = local.slot(P);
    if (slot == escape) {
      local.take(escape, 1, P);
      symbols[i] = get_escaped(local, tables, index[i]);
      continue;
    }
    const auto found = tables.find(index[i], slot);
    local.take(found.start, found.frequency, P);
    symbols[i] = static_cast<int32_t>(tables.low() + static_cast<int64_t>(found.symbol));
  }
  decoder = local;
}

}  // namespace otcuda::cpu
