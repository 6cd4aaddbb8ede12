// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: tables, lengths and messages from any bytes, through both decoders.
//
//   clang++ -std=c++17 -g -O1 -fsanitize=fuzzer,address,undefined -Icsrc ... -o any_bytes
//   ./any_bytes -max_len=400
//
// With -DOTCUDA_FUZZ_MAIN it has a main of its own, for compilers without libFuzzer: any_bytes
// RUNS SEED. python_tests/coding/test_fuzz.py builds and runs both.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cases.h"
#include "common/check.h"
#include "cpu/range64.h"
#include "cpu/rans32.h"

namespace {

using namespace otcuda;
using namespace otcuda::fuzz;

// Takes numbers from the front; zeros when nothing is left.
struct Source {
  const uint8_t* next;
  const uint8_t* end;

  uint32_t byte() { return next != end ? *next++ : 0; }
  uint32_t number() { return byte() | byte() << 8; }
  std::vector<uint8_t> rest() const { return std::vector<uint8_t>(next, end); }
};

// Frequencies as they come; the last one of each table makes up for the sum, where it can.
cpu::Tables tables_of(Source& from) {
  const int P = 1 + static_cast<int>(from.byte() % 24);
  const bool escape = from.byte() % 2 != 0;
  const int64_t T = 1 + from.byte() % 3, n = 1 + from.byte() % 12;
  std::vector<uint32_t> frequencies;
  for (int64_t t = 0; t < T; ++t) {
    uint32_t left = (1u << P) - (escape ? 1 : 0);
    for (int64_t s = 0; s < n; ++s) {
      const uint32_t f = s + 1 < n ? from.number() % (left + 1) : left;
      frequencies.push_back(f);
      left -= std::min(left, f);
    }
  }
  if (from.byte() % 8 == 0) frequencies[0] += from.number();
  const int32_t low = static_cast<int32_t>(from.number() << 16);
  return cpu::Tables(frequencies.data(), T, n, low, P, escape);
}

void check_symbols(const cpu::Tables& tables, const std::vector<int64_t>& symbols) {
  for (const int64_t s : symbols) {
    const bool inside = s >= tables.low() && s < tables.low() + tables.symbols();
    if (!inside && !tables.escape()) fail("a symbol outside the alphabet");
  }
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
  try {
    auto decoders = cpu::range64_split(message.data.get(), message.size, lanes);
    cpu::range64_get(decoders, tables, &which, view(symbols), nobody);
    check_symbols(tables, symbols);
  } catch (const CorruptDataError&) {
  }
  if (tables.wide()) return;
  try {
    cpu::rans32_decode(tables, message.data.get(), static_cast<int64_t>(message.size), &which,
                       block, blocks.data(), view(symbols), nobody);
    check_symbols(tables, symbols);
  } catch (const CorruptDataError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Source from = {data, data + size};
  try {
    read(tables_of(from), from);
  } catch (const ArgumentError&) {
  }
  return 0;
}

#ifdef OTCUDA_FUZZ_MAIN
int main(int argc, char** argv) {
  const uint64_t runs = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1000;
  generator.seed(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0);
  for (uint64_t k = 0; k < runs; ++k) {
    std::vector<uint8_t> bytes(below(400));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(one_in(3) ? 0 : generator());
    const Exact exact(bytes);
    LLVMFuzzerTestOneInput(exact.data.get(), exact.size);
  }
  std::printf("%llu runs, nothing found\n", static_cast<unsigned long long>(runs));
}
#endif
