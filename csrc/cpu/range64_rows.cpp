// SPDX-License-Identifier: Apache-2.0
// A table a symbol, as torchac has it: each row is copied and checked when its turn comes.
#include <algorithm>
#include <string>

#include "common/check.h"
#include "cpu/range64.h"

namespace otcuda::cpu {
namespace {

constexpr int kRowPrecision = 16;
constexpr int64_t kRowsBetweenPolls = 256;

// work(i, row of its own) for each symbol.
template <class Work>
void for_rows(const TensorView& cdf, Poll& poll, const Work& work) {
  const int64_t n = cdf.shape[0], width = cdf.shape[1];
  Vector<uint32_t> row(static_cast<size_t>(width));
  for (int64_t i = 0; i < n; ++i) {
    if (i % kRowsBetweenPolls == 0) poll(double(i) / double(n));
    const int32_t* from = cdf.read<int32_t>() + i * width;
    std::copy(from, from + width, row.begin());
    bool good = row[0] == 0 && row[width - 1] == 1u << kRowPrecision;
    for (int64_t s = 1; s < width; ++s) good &= row[s - 1] < row[s];
    OTCUDA_CHECK(good, "cdf[" + std::to_string(i) + "] does not rise from 0 to 65536");
    work(i, row.data());
  }
}

}  // namespace

void range64_put_rows(Encoder& encoder, const TensorView& cdf, const TensorView& symbols,
                      Poll& poll) {
  const int64_t last = cdf.shape[1] - 2;
  for_rows(cdf, poll, [&](int64_t i, const uint32_t* row) {
    const int32_t s = symbols.read<int32_t>()[i];
    OTCUDA_CHECK(s >= 0 && s <= last, "sym[" + std::to_string(i) + "] is " + std::to_string(s) +
                                          ", expected 0 .. " + std::to_string(last));
    encoder.put(row[s], row[s + 1] - row[s], kRowPrecision);
  });
}

void range64_get_rows(RangeDecoder& decoder, const TensorView& cdf, const TensorView& symbols,
                      Poll& poll) {
  const auto count = static_cast<uint32_t>(cdf.shape[1] - 1);
  for_rows(cdf, poll, [&](int64_t i, const uint32_t* row) {
    symbols.write<int32_t>()[i] = static_cast<int32_t>(decoder.get(row, count, kRowPrecision));
  });
  if (!decoder.finished()) throw CorruptDataError("the message is damaged, or symbols were left");
}

}  // namespace otcuda::cpu
