// SPDX-License-Identifier: Apache-2.0
// Batches: each message alone, one thread a message.
#include <algorithm>
#include <string>
#include <utility>

#include "common/check.h"
#include "common/threads.h"
#include "cpu/range64.h"

namespace otcuda::cpu {
namespace {

constexpr double kNanoseconds = 15;  // a symbol
constexpr int64_t kGrain = 16;       // messages

TensorView part(const TensorView& view, int64_t begin, int64_t end) {
  TensorView slice = view;
  slice.data = static_cast<char*>(view.data) + begin * dtype_bytes(view.dtype);
  slice.shape[0] = end - begin;
  return slice;
}

// work(k, begin, end) for each message, its number in what it throws.
template <class Work>
void for_messages(const int64_t* ends, int64_t count, Poll& poll, const Work& work) {
  const double symbols = count > 0 ? double(ends[count - 1]) : 0;
  parallel_for(
      count, kGrain,
      [&](int64_t from, int64_t to) {
        for (int64_t k = from; k < to; ++k) {
          heartbeat();
          const std::string name = "message " + std::to_string(k) + ": ";
          try {
            work(k, k == 0 ? 0 : ends[k - 1], ends[k]);
          } catch (const ArgumentError& error) {
            throw ArgumentError(name + error.what());
          } catch (const CorruptDataError& error) {
            throw CorruptDataError(name + error.what());
          }
        }
      },
      &poll, threads_for(kNanoseconds * symbols));
}

}  // namespace

Vector<uint8_t> range64_put_many(const Tables& tables, const TensorView& symbols,
                                 const TensorView* index, const int64_t* ends, int64_t messages,
                                 int64_t* byte_ends, Poll& poll) {
  Vector<Vector<uint8_t>> parts(static_cast<size_t>(messages));
  for_messages(ends, messages, poll, [&](int64_t k, int64_t begin, int64_t end) {
    Encoder encoder;
    Poll nobody;
    const TensorView tables_of = index != nullptr ? part(*index, begin, end) : TensorView();
    range64_put(encoder, tables, part(symbols, begin, end), index != nullptr ? &tables_of : nullptr,
                nobody);
    parts[k] = encoder.finish();
  });
  int64_t size = 0;
  for (int64_t k = 0; k < messages; ++k) byte_ends[k] = size += int64_t(parts[k].size());
  Vector<uint8_t> bytes;
  bytes.reserve(static_cast<size_t>(size));
  for (const auto& message : parts) bytes.insert(bytes.end(), message.begin(), message.end());
  return bytes;
}

void range64_get_many(const Tables& tables, const ManyMessages& messages, const TensorView* index,
                      const TensorView& symbols, Poll& poll) {
  for_messages(messages.ends, messages.count, poll, [&](int64_t k, int64_t begin, int64_t end) {
    const int64_t from = k == 0 ? 0 : messages.byte_ends[k - 1];
    RangeDecoder decoder(messages.data + from, static_cast<size_t>(messages.byte_ends[k] - from));
    Poll nobody;
    const TensorView tables_of = index != nullptr ? part(*index, begin, end) : TensorView();
    range64_get(decoder, tables, index != nullptr ? &tables_of : nullptr, part(symbols, begin, end),
                nobody);
    if (!decoder.finished()) throw CorruptDataError("it is damaged, or symbols were left");
  });
}

}  // namespace otcuda::cpu
