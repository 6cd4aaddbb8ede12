// SPDX-License-Identifier: Apache-2.0
// What the mutation harnesses of the coders share: random tables, symbols, and damage.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "common/tensor_view.h"
#include "cpu/tables.h"

namespace otcuda::fuzz {

inline std::mt19937_64 generator;

inline uint64_t below(uint64_t n) { return n == 0 ? 0 : generator() % n; }
inline bool one_in(uint64_t n) { return below(n) == 0; }

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "wrong: %s\n", what);
  std::abort();
}

inline TensorView view(std::vector<int64_t>& values) {
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

inline std::vector<uint32_t> random_weights(int64_t n) {
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

inline std::unique_ptr<cpu::Tables> random_tables(int most_precision) {
  const int P = 1 + static_cast<int>(below(one_in(4) ? most_precision : 12));
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
                                       one_in(30) ? static_cast<int>(below(most_precision + 1)) : P,
                                       escape);
}

inline int64_t random_symbol(const cpu::Tables& tables) {
  const int64_t inside = tables.low() + static_cast<int64_t>(below(tables.symbols()));
  if (!tables.escape() || !one_in(6)) return inside;
  if (one_in(4)) return one_in(2) ? INT32_MIN : INT32_MAX;
  if (one_in(2)) return static_cast<int32_t>(generator());
  return std::min<int64_t>(tables.low() + tables.symbols(), INT32_MAX);
}

inline std::vector<uint8_t> damaged(std::vector<uint8_t> message) {
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

}  // namespace otcuda::fuzz
