// SPDX-License-Identifier: Apache-2.0
// Mutation harness of tables and range64: fuzz_range64 CASES SEED [COPIES].
//
// Each case makes tables (quantised, or frequencies that are mostly refused), codes a message with
// adversarial symbols, reads it back, and then reads damaged copies: flips, cuts, random bytes. All
// messages lie in heap blocks of their exact size. Built with -fsanitize=address,undefined by
// python_tests/coding/test_fuzz.py and `make fuzz`; a wrong symbol or any report ends it.
#include "cpu/range64.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cases.h"
#include "common/check.h"

namespace {

using namespace otcuda;
using namespace otcuda::fuzz;

void read_damaged(const cpu::Tables& tables, const Exact& bytes, int lanes,
                  std::vector<int64_t>& index, std::vector<int64_t>& symbols) {
  Poll nobody;
  const TensorView tables_of = view(index);
  try {
    auto decoders = cpu::range64_split(bytes.data.get(), bytes.size, lanes);
    cpu::range64_get(decoders, tables, &tables_of, view(symbols), nobody);
  } catch (const CorruptDataError&) {
    return;
  }
  for (const int64_t s : symbols) {
    if (s < INT32_MIN || s > INT32_MAX) fail("a symbol beyond int32");
    const int64_t offset = s - tables.low();
    if (!tables.escape() && (offset < 0 || offset >= tables.symbols()))
      fail("an impossible symbol");
  }
}

// One table of 2^12 slots, which long messages look up in the quickest way.
std::unique_ptr<cpu::Tables> quick_tables() {
  const int64_t n = 1 + static_cast<int64_t>(below(300));
  const std::vector<uint32_t> weights = random_weights(n);
  std::vector<uint32_t> frequencies(weights.size());
  const bool escape = one_in(2);
  Poll nobody;
  cpu::quantise(weights.data(), 1, n, 12, escape, frequencies.data(), nobody);
  return std::make_unique<cpu::Tables>(frequencies.data(), 1, n, -5, 12, escape);
}

void symbols_case(const cpu::Tables& tables, uint64_t copies, size_t least) {
  const size_t n = least + below(one_in(20) ? 3000 : 200);
  std::vector<int64_t> symbols(n), index(n), decoded(n);
  for (int64_t& t : index) t = static_cast<int64_t>(below(tables.count()));
  for (int64_t& s : symbols) s = random_symbol(tables);
  Poll nobody;
  const int lanes = 1 << below(3);
  Vector<cpu::Encoder> encoders(static_cast<size_t>(lanes));
  const TensorView tables_of = view(index);
  cpu::range64_put(encoders, tables, view(symbols), &tables_of, nobody);
  const Vector<uint8_t> written = cpu::range64_join(encoders);
  const std::vector<uint8_t> message(written.begin(), written.end());
  const Exact exact(message);
  auto decoders = cpu::range64_split(exact.data.get(), exact.size, lanes);
  cpu::range64_get(decoders, tables, &tables_of, view(decoded), nobody);
  if (decoded != symbols) fail("a round trip");
  for (const RangeDecoder& decoder : decoders) {
    if (!decoder.finished()) fail("a message with bytes to spare");
  }
  for (uint64_t k = 0; k < copies; ++k)
    read_damaged(tables, Exact(damaged(message)), lanes, index, decoded);
}

// Every step on any bytes, and through an encoder of the values that came out.
void steps_case() {
  std::vector<uint8_t> noise(below(60));
  for (uint8_t& byte : noise) byte = static_cast<uint8_t>(generator());
  const Exact exact(noise);
  RangeDecoder decoder(exact.data.get(), exact.size);
  RangeEncoder encoder;
  struct Step {
    int kind, k;
    uint32_t p;
    uint64_t value;
  };
  std::vector<Step> steps;
  for (int i = 0; i < 40; ++i) {
    Step step = {static_cast<int>(below(4)), 0, 0, 0};
    step.k = step.kind == 0 ? static_cast<int>(below(65)) : 1 + static_cast<int>(below(24));
    if (step.kind == 2) step.p = static_cast<uint32_t>(1 + below((uint64_t{1} << step.k) - 1));
    if (step.kind == 1) step.p = static_cast<uint32_t>(1 + below(kRangeUniformMax));
    if (step.kind == 0) {
      step.value = decoder.bits(step.k);
      encoder.bits(step.value, step.k);
    }
    if (step.kind == 1) {
      step.value = decoder.uniform(step.p);
      encoder.uniform(static_cast<uint32_t>(step.value), step.p);
      if (step.value >= step.p) fail("uniform out of bounds");
    }
    if (step.kind == 2) {
      step.value = decoder.bit(step.p, step.k);
      encoder.bit(step.value != 0, step.p, step.k);
    }
    if (step.kind == 3) {
      step.value = decoder.exp_golomb();
      if (step.value == UINT64_MAX) step.value = 0;
      encoder.exp_golomb(step.value);
    }
    steps.push_back(step);
  }
  const Exact again(encoder.finish());
  RangeDecoder reader(again.data.get(), again.size);
  for (const Step& step : steps) {
    const uint64_t value = step.kind == 0   ? reader.bits(step.k)
                           : step.kind == 1 ? reader.uniform(step.p)
                           : step.kind == 2 ? reader.bit(step.p, step.k)
                                            : reader.exp_golomb();
    if (value != step.value) fail("a round trip of steps");
  }
  if (!reader.finished()) fail("steps with bytes to spare");
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t cases = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1000;
  generator.seed(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0);
  const uint64_t copies = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 6;
  uint64_t refused = 0;
  for (uint64_t k = 0; k < cases; ++k) {
    try {
      symbols_case(*random_tables(30), copies, 0);
      if (one_in(16)) symbols_case(*quick_tables(), copies, 1024);
    } catch (const ArgumentError&) {
      ++refused;  // only random_tables asks for the impossible
    }
    steps_case();
  }
  std::printf("%llu cases, %llu tables refused, nothing found\n",
              static_cast<unsigned long long>(cases), static_cast<unsigned long long>(refused));
}
