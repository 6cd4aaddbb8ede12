// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: symbols, indices and steps from any bytes, in any dtype, through the encoders.
//
// What one coder or level refuses, all refuse; what they take comes back from the decoders, and
// rans32 writes one message at every level. Built and run as any_bytes.cpp.
#include <cstdint>
#include <vector>

#include "common/simd.h"
#include "common/threads.h"
#include "cpu/compat64.h"
#include "cpu/range64.h"
#include "cpu/rans32.h"
#include "source.h"

namespace {

using namespace otcuda;
using namespace otcuda::fuzz;

DType integer_of(uint32_t k) { return static_cast<DType>(static_cast<uint32_t>(DType::u8) + k); }

// Mostly values that can be coded; now and then whatever the bytes are.
Array integers(Source& from, int64_t n, int64_t low, int64_t span) {
  const DType dtype = integer_of(from.byte() % 8);
  const int width = dtype_bytes(dtype);
  std::vector<uint8_t> raw;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t kind = from.byte();
    int64_t value = low + kind % span;
    if (kind >= 250) value = static_cast<int32_t>(from.word());
    if (kind == 255) value = static_cast<int64_t>(uint64_t{from.word()} << 32);
    for (int k = 0; k < width; ++k) raw.push_back(static_cast<uint8_t>(value >> 8 * k));
  }
  return Array(raw, dtype, {n});
}

struct Message {
  const cpu::Tables& tables;
  TensorView symbols, index;
  int64_t block;
  bool refused;  // by range64
};

// Whether decoded symbols, in the dtype they had, are the ones that were coded.
void expect_same(const Message& message, const Array& decoded, const char* what) {
  const size_t bytes = decoded.bytes.size;
  if (bytes != 0 && std::memcmp(decoded.bytes.data.get(), message.symbols.data, bytes) != 0)
    fail(what);
}

Array room_for(const Message& message) {
  const int64_t n = message.symbols.size();
  return Array(std::vector<uint8_t>(static_cast<size_t>(n * dtype_bytes(message.symbols.dtype))),
               message.symbols.dtype, {n});
}

bool by_range64(const Message& message, int lanes) {
  Poll nobody;
  return refused([&] {
    Vector<cpu::Encoder> encoders(static_cast<size_t>(lanes));
    cpu::range64_put(encoders, message.tables, message.symbols, &message.index, nobody);
    const Vector<uint8_t> written = cpu::range64_join(encoders);
    const Exact exact(std::vector<uint8_t>(written.begin(), written.end()));
    const Array decoded = room_for(message);
    auto decoders = cpu::range64_split(exact.data.get(), exact.size, lanes);
    cpu::range64_get(decoders, message.tables, &message.index, decoded.view(), nobody);
    for (const RangeDecoder& decoder : decoders) {
      if (!decoder.finished()) fail("a message with bytes to spare");
    }
    expect_same(message, decoded, "range64");
  });
}

void in_batches(const Message& message, int64_t cut) {
  const int64_t n = message.symbols.size();
  const int64_t ends[] = {cut, cut, n};
  int64_t byte_ends[3];
  Poll nobody;
  const bool no = refused([&] {
    const auto data = cpu::range64_put_many(message.tables, message.symbols, &message.index, ends,
                                            3, byte_ends, nobody);
    const Array decoded = room_for(message);
    cpu::range64_get_many(message.tables, {data.data(), byte_ends, ends, 3}, &message.index,
                          decoded.view(), nobody);
    expect_same(message, decoded, "a batch");
  });
  if (no != message.refused) fail("a batch takes what range64 refuses, or the other way round");
}

void by_rans32(const Message& message) {
  const int64_t n = message.symbols.size(), count = (n + message.block - 1) / message.block;
  std::vector<uint8_t> first;
  const auto levels = simd_levels();
  for (const SimdLevel level : levels) {
    set_simd_level(simd_level_name(level));
    Poll nobody;
    const bool no = refused([&] {
      std::vector<cpu::RansBlock> blocks(static_cast<size_t>(count));
      std::vector<uint8_t> written;
      for (const auto& part : cpu::rans32_encode(message.tables, message.symbols, &message.index,
                                                 message.block, blocks.data(), nobody)) {
        written.insert(written.end(), part.begin(), part.end());
      }
      if (level == levels[0]) first = written;
      if (written != first) fail("levels differ");
      const Exact exact(written);
      const Array decoded = room_for(message);
      cpu::rans32_decode(message.tables, exact.data.get(), static_cast<int64_t>(exact.size),
                         &message.index, message.block, blocks.data(), decoded.view(), nobody);
      expect_same(message, decoded, "rans32");
    });
    if (no != message.refused) fail("rans32 takes what range64 refuses, or the other way round");
  }
}

// Steps without tables, of values that may be out of bounds.
void steps(Source& from) {
  cpu::Encoder encoder;
  const int64_t n = from.byte() % 40;
  const int k = static_cast<int>(from.byte() % 64), P = 1 + static_cast<int>(from.byte() % 24);
  const uint32_t K = 1 + from.word() % kRangeUniformMax;
  const Array values = integers(from, n, 0, 1 + from.byte()), p1 = integers(from, n, 1, 200);
  const bool bits = !refused([&] { cpu::range64_put_bits(encoder, values.view(), k); });
  const bool uniform = !refused([&] { cpu::range64_put_uniform(encoder, values.view(), K); });
  const bool bit = !refused([&] { cpu::range64_put_bit(encoder, values.view(), p1.view(), P); });
  const bool golomb = !refused([&] { cpu::range64_put_exp_golomb(encoder, values.view()); });
  const Vector<uint8_t> written = encoder.finish();
  const Exact exact(std::vector<uint8_t>(written.begin(), written.end()));
  RangeDecoder decoder(exact.data.get(), exact.size);
  std::vector<int64_t> wanted(static_cast<size_t>(n)), found(wanted.size());
  const auto expect = [&](bool coded, const auto& get) {
    if (!coded) return;
    get();
    const Array again(found, DType::i64, {n});
    for (int64_t i = 0; i < n; ++i) {
      const int width = dtype_bytes(values.view().dtype);
      const auto* raw = values.bytes.data.get() + i * width;
      if (std::memcmp(raw, again.bytes.data.get() + 8 * i, static_cast<size_t>(width)) != 0)
        fail("a step");
    }
  };
  expect(bits, [&] { cpu::range64_get_bits(decoder, view(found), k); });
  expect(uniform, [&] { cpu::range64_get_uniform(decoder, view(found), K); });
  expect(bit, [&] { cpu::range64_get_bit(decoder, view(found), p1.view(), P); });
  expect(golomb, [&] { cpu::range64_get_exp_golomb(decoder, view(found)); });
  if (!decoder.finished()) fail("steps with bytes to spare");
}

// CompressAI's format: any symbols by one or two tables.
void compat(Source& from) {
  const int32_t cdf[] = {0, 1 + static_cast<int32_t>(from.number() % 65000), 65536, 0, 65536, 0};
  const int32_t sizes[] = {3, 2};
  const int32_t offsets[] = {static_cast<int32_t>(from.word()), static_cast<int32_t>(from.byte())};
  const size_t n = from.byte() % 30;
  std::vector<int32_t> symbols(n), index(n), decoded(n);
  for (size_t i = 0; i < n; ++i) {
    index[i] = static_cast<int32_t>(from.byte() % 2);
    symbols[i] = static_cast<int32_t>(from.byte() % 2 != 0 ? from.word() : from.byte());
  }
  const cpu::CompatTables tables(cdf, 2, 3, sizes, offsets);
  Vector<cpu::CompatStep> pushed;
  cpu::compat64_push(tables, symbols.data(), index.data(), static_cast<int64_t>(n), &pushed);
  const Vector<uint8_t> written = cpu::compat64_flush(pushed);
  const Exact exact(std::vector<uint8_t>(written.begin(), written.end()));
  cpu::CompatDecoder decoder(exact.data.get(), exact.size);
  decoder.get(tables, index.data(), static_cast<int64_t>(n), decoded.data());
  if (decoded != symbols) fail("compat64");
}

void quantised(Source& from) {
  const int64_t n = 1 + from.byte() % 20;
  const int P = 1 + static_cast<int>(from.byte() % 12);
  const bool escape = from.byte() % 2 != 0;
  std::vector<uint32_t> weights(static_cast<size_t>(n)), frequencies(weights.size());
  for (uint32_t& w : weights) w = from.byte() % 2 != 0 ? from.word() : from.byte();
  Poll nobody;
  const bool no =
      refused([&] { cpu::quantise(weights.data(), 1, n, P, escape, frequencies.data(), nobody); });
  if (!no) cpu::Tables(frequencies.data(), 1, n, 0, P, escape);  // refuses what does not sum up
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  set_num_threads(1);
  Source from = {data, data + size};
  refused([&] {
    const cpu::Tables tables = tables_of(from);
    const int64_t n = from.byte() % 2 != 0 ? from.byte() : from.byte() % 8;
    const int lanes = 1 << from.byte() % 3;
    const int64_t block = 32 * (1 + from.byte() % 4);
    const Array symbols = integers(from, n, tables.low(), tables.symbols());
    const Array index = integers(from, n, 0, tables.count());
    Message message = {tables, symbols.view(), index.view(), block, false};
    message.refused = by_range64(message, lanes);
    in_batches(message, n / 3);
    if (!tables.wide()) by_rans32(message);
  });
  steps(from);
  compat(from);
  if (refused([&] { quantised(from); })) fail("the quantiser makes what tables refuse");
  return 0;
}
