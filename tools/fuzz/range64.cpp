// SPDX-License-Identifier: Apache-2.0
// Mutation harness of tables and range64: fuzz_range64 CASES SEED.
//
// Each case makes tables (quantised, or frequencies that are mostly refused), codes a message with
// adversarial symbols, reads it back, and then reads damaged copies: flips, cuts, random bytes. All
// messages lie in heap blocks of their exact size. Built with -fsanitize=address,undefined by
// python_tests/coding/test_fuzz.py and `make fuzz`; a wrong symbol or any report ends it.
#include "cpu/range64.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/check.h"

namespace {

using namespace otcuda;

std::mt19937_64 generator;

uint64_t below(uint64_t n) { return n == 0 ? 0 : generator() % n; }
bool one_in(uint64_t n) { return below(n) == 0; }

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "wrong: %s\n", what);
  std::abort();
}

TensorView view(std::vector<int64_t>& values) {
  TensorView result;
  result.data = values.data();
  result.ndim = 1;
  result.shape[0] = static_cast<int64_t>(values.size());
  result.strides[0] = 1;
  result.dtype = DType::i64;
  return result;
}

// A copy with nothing readable behind it.
struct Exact {
  explicit Exact(const std::vector<uint8_t>& from) : size(from.size()), data(new uint8_t[size]) {
    std::copy(from.begin(), from.end(), data.get());
  }
  size_t size;
  std::unique_ptr<uint8_t[]> data;
};

std::vector<uint32_t> random_weights(int64_t n) {
  std::vector<uint32_t> weights(n);
  const uint64_t kind = below(4);
  for (uint32_t& w : weights) {
    if (kind == 0) w = static_cast<uint32_t>(below(3));
    if (kind == 1) w = static_cast<uint32_t>(uint64_t{1} << below(32));
    if (kind == 2) w = one_in(10) ? static_cast<uint32_t>(below(100)) : 0;
    if (kind == 3) w = UINT32_MAX;
  }
  weights[below(n)] |= 1;
  return weights;
}

std::unique_ptr<cpu::Tables> random_tables() {
  const int P = 1 + static_cast<int>(below(one_in(4) ? 16 : 12));  // high ones take their time
  const bool escape = !one_in(3);
  const int64_t most = escape ? (one_in(50) ? 65536 : 400) : std::min<int64_t>(1 << P, 400);
  const int64_t n = 1 + static_cast<int64_t>(below(most)), T = 1 + static_cast<int64_t>(below(4));
  int64_t low = one_in(3) ? static_cast<int32_t>(generator()) : -n / 2;
  if (one_in(20)) low = one_in(2) ? INT32_MIN : INT32_MAX - n + 1;
  low = std::min<int64_t>(low, INT32_MAX - n + 1);
  std::vector<uint32_t> weights, frequencies(T * n);
  for (int64_t t = 0; t < T; ++t) {
    const std::vector<uint32_t> row = random_weights(n);
    weights.insert(weights.end(), row.begin(), row.end());
  }
  Poll nobody;
  cpu::quantise(weights.data(), T, n, P, escape, frequencies.data(), nobody);
  if (one_in(10)) frequencies[below(T * n)] += static_cast<uint32_t>(generator());
  if (one_in(10)) std::shuffle(frequencies.begin(), frequencies.begin() + n, generator);
  return std::make_unique<cpu::Tables>(frequencies.data(), T, n, static_cast<int32_t>(low),
                                       one_in(30) ? static_cast<int>(below(40)) : P, escape);
}

int64_t random_symbol(const cpu::Tables& tables) {
  const int64_t inside = tables.low() + static_cast<int64_t>(below(tables.symbols()));
  if (!tables.escape() || !one_in(6)) return inside;
  if (one_in(4)) return one_in(2) ? INT32_MIN : INT32_MAX;
  if (one_in(2)) return static_cast<int32_t>(generator());
  return std::min<int64_t>(tables.low() + tables.symbols(), INT32_MAX);
}

std::vector<uint8_t> damaged(std::vector<uint8_t> message) {
  const uint64_t kind = below(4);
  if (kind == 0 && !message.empty()) message.resize(below(message.size()));
  if (kind == 1) message.resize(message.size() + below(9), 0xff);
  if (kind == 2) {
    for (uint8_t& byte : message) byte = static_cast<uint8_t>(generator());
  }
  for (uint64_t k = below(4); k > 0 && !message.empty(); --k) {
    message[below(message.size())] ^= static_cast<uint8_t>(1 + below(255));
  }
  return message;
}

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

void symbols_case(const cpu::Tables& tables) {
  const size_t n = below(one_in(20) ? 3000 : 200);
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
  for (int k = 0; k < 6; ++k) read_damaged(tables, Exact(damaged(message)), lanes, index, decoded);
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
  uint64_t refused = 0;
  for (uint64_t k = 0; k < cases; ++k) {
    try {
      symbols_case(*random_tables());
    } catch (const ArgumentError&) {
      ++refused;  // only random_tables asks for the impossible
    }
    steps_case();
  }
  std::printf("%llu cases, %llu tables refused, nothing found\n",
              static_cast<unsigned long long>(cases), static_cast<unsigned long long>(refused));
}
