// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: tables, lengths and messages from any bytes, through every decoder of tables.
//
//   clang++ -std=c++17 -g -O1 -fsanitize=fuzzer,address,undefined -Icsrc ... -o any_bytes
//   ./any_bytes -max_len=400
//
// python_tests/coding/test_fuzz.py builds and runs it, with libFuzzer and without.
#include <cstdint>
#include <vector>

#include "cpu/compat64.h"
#include "cpu/range64.h"
#include "cpu/rans32.h"
#include "source.h"

namespace {

using namespace otcuda;
using namespace otcuda::fuzz;

void check_symbols(const cpu::Tables& tables, const std::vector<int64_t>& symbols) {
  for (const int64_t s : symbols) {
    const bool inside = s >= tables.low() && s < tables.low() + tables.symbols();
    if (!inside && !tables.escape()) fail("a symbol outside the alphabet");
  }
}

// The message as a batch that is cut in the middle, symbols and bytes.
void read_many(const cpu::Tables& tables, const Exact& message, const TensorView& which,
               std::vector<int64_t>& symbols) {
  const int64_t n = static_cast<int64_t>(symbols.size());
  const int64_t size = static_cast<int64_t>(message.size);
  const int64_t ends[] = {n / 2, n}, byte_ends[] = {size / 2, size};
  Poll nobody;
  const bool good = was_read([&] {
    cpu::range64_get_many(tables, {message.data.get(), byte_ends, ends, 2}, &which, view(symbols),
                          nobody);
  });
  if (good) check_symbols(tables, symbols);
}

void read(const cpu::Tables& tables, Source& from) {
  const int lanes = 1 << from.byte() % 3;
  std::vector<int64_t> symbols(from.byte()), index(symbols.size());
  for (int64_t& t : index) t = from.next == from.end ? 0 : *from.next % tables.count();
  const int64_t block = 32 * (1 + from.byte() % 4), n = static_cast<int64_t>(symbols.size());
  std::vector<cpu::RansBlock> blocks(static_cast<size_t>((n + block - 1) / block));
  for (auto& each : blocks) each = {from.byte(), from.byte(), from.number()};
  const Exact message(from.rest());
  const TensorView which = view(index);
  Poll nobody;
  bool good = was_read([&] {
    auto decoders = cpu::range64_split(message.data.get(), message.size, lanes);
    cpu::range64_get(decoders, tables, &which, view(symbols), nobody);
  });
  if (good) check_symbols(tables, symbols);
  read_many(tables, message, which, symbols);
  if (tables.wide()) return;
  good = was_read([&] {
    cpu::rans32_decode(tables, message.data.get(), static_cast<int64_t>(message.size), &which,
                       block, blocks.data(), view(symbols), nobody);
  });
  if (good) check_symbols(tables, symbols);
}

// Cumulative tables as they come, mostly made good, for what others' formats read.
void read_rows(Source from) {
  const int64_t n = 1 + from.byte() % 5, width = 2 + from.byte() % 6;
  std::vector<int32_t> cdf;
  for (int64_t i = 0; i < n * width; ++i) {
    const int64_t at = i % width;
    const int32_t next = cdf.empty() ? 0 : cdf.back() + 1 + static_cast<int32_t>(from.byte());
    cdf.push_back(at == 0 ? 0 : at + 1 == width ? 65536 : next);
  }
  if (from.byte() % 8 == 0) cdf[0] = static_cast<int32_t>(from.word());
  std::vector<int32_t> sizes(n, static_cast<int32_t>(width)), offsets(n), index(from.byte());
  if (from.byte() % 8 == 0) sizes[0] = static_cast<int32_t>(from.number());
  for (int32_t& each : offsets) each = static_cast<int32_t>(from.word());
  for (int32_t& t : index) t = static_cast<int32_t>(from.byte() % (n + (from.byte() == 0)));
  const Exact message(from.rest());
  const Array rows(cdf, DType::i32, {n, width}), symbols(sizes, DType::i32, {n});
  std::vector<int32_t> decoded(index.size());
  Poll nobody;
  refused([&] {
    was_read([&] {
      RangeDecoder decoder(message.data.get(), message.size);
      cpu::range64_get_rows(decoder, rows.view(), symbols.view(), nobody);
    });
  });
  refused([&] {
    was_read([&] {
      const cpu::CompatTables tables(cdf.data(), n, width, sizes.data(), offsets.data());
      cpu::CompatDecoder decoder(message.data.get(), message.size);
      decoder.get(tables, index.data(), static_cast<int64_t>(index.size()), decoded.data());
    });
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Source from = {data, data + size};
  refused([&] { read(tables_of(from), from); });
  read_rows({data, data + size});
  return 0;
}
