// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: adaptive models and causal priors of any numbers, reading any bytes; maps that
// they take come back, by the same message at every level. Built and run as any_bytes.cpp.
#include <cstdint>
#include <utility>
#include <vector>

#include "common/simd.h"
#include "cpu/adaptive.h"
#include "cpu/causal_prior.h"
#include "source.h"

namespace {

using namespace otcuda;
using namespace otcuda::fuzz;

Vector<cpu::Neighbour> neighbours_of(Source& from, uint32_t most) {
  Vector<cpu::Neighbour> found(from.byte() % (most + 1));
  for (auto& each : found) {
    each.dy = -static_cast<int32_t>(from.byte() % 3);
    each.dx = static_cast<int32_t>(from.byte() % 7) - 3;
    if (from.byte() == 255) each.dy = static_cast<int32_t>(from.word());
    if (each.dy == 0 && from.byte() != 255) each.dx = -1 - each.dx * each.dx;
  }
  return found;
}

// Reads a map [h, w] from any bytes, and writes one whose symbols mostly fit.
template <class Put, class Get>
void both_ways(Source& from, uint32_t symbols, const Put& put, const Get& get) {
  const int64_t h = from.byte() % 5, w = from.byte() % 6;
  std::vector<uint16_t> given(static_cast<size_t>(h * w));
  for (uint16_t& s : given) s = static_cast<uint16_t>(from.byte() % symbols);
  if (!given.empty() && from.byte() == 255) given[0] = static_cast<uint16_t>(from.number());
  const Array map(given, DType::u16, {h, w}), room(given, DType::u16, {h, w});
  const auto* decoded = room.view().read<uint16_t>();
  const Exact noise(from.rest());
  std::vector<uint8_t> first;
  const auto levels = simd_levels();
  for (const SimdLevel level : levels) {
    set_simd_level(simd_level_name(level));
    RangeDecoder any(noise.data.get(), noise.size);
    const bool good = was_read([&] { get(any, room.view()); });
    for (size_t i = 0; good && i < given.size(); ++i) {
      if (decoded[i] >= symbols) fail("a symbol that the model has not");
    }
    refused([&] {
      cpu::Encoder encoder;
      put(encoder, map.view());
      const Vector<uint8_t> written = encoder.finish();
      if (level == levels[0]) first.assign(written.begin(), written.end());
      if (!std::equal(written.begin(), written.end(), first.begin(), first.end())) {
        fail("levels differ");
      }
      const Exact exact(first);
      RangeDecoder decoder(exact.data.get(), exact.size);
      get(decoder, room.view());
      if (!decoder.finished()) fail("a map with bytes to spare");
      if (!std::equal(given.begin(), given.end(), decoded)) fail("a map");
    });
  }
}

void adaptive(Source from) {
  cpu::AdaptiveModel model = {static_cast<int>(from.byte() % 6),
                              static_cast<int>(from.byte() % 17),
                              static_cast<int>(from.byte() % 17),
                              {},
                              {},
                              {}};
  model.inputs.resize(from.byte() % 5);
  for (auto& input : model.inputs) input = neighbours_of(from, 3);
  const bool chosen = from.byte() % 4 == 0;  // states that no learning reaches
  model.counters.assign(static_cast<size_t>(model.counters_needed()), 1 << 15);
  model.weights.assign(model.inputs.size() * static_cast<size_t>(model.bits), 1 << 15);
  for (auto& c : model.counters) c = static_cast<uint16_t>(chosen ? from.number() : c);
  for (auto& w : model.weights) w = static_cast<int32_t>(chosen ? from.word() : w);
  model.check();
  Poll nobody;
  both_ways(
      from, 1u << model.bits,
      [&](cpu::Encoder& encoder, const TensorView& map) {
        cpu::AdaptiveModel copy = model;
        cpu::adaptive_put(encoder, copy, map, nobody);
      },
      [&](RangeDecoder& decoder, const TensorView& map) {
        cpu::AdaptiveModel copy = model;
        cpu::adaptive_get(decoder, copy, map, nobody);
      });
}

struct LayerArrays {
  Array weights, bias, multiplier;
  int shift;
};

LayerArrays layer_of(Source& from, int64_t outputs, int64_t inputs) {
  const bool wild = from.byte() % 4 == 0;
  std::vector<int32_t> bias(static_cast<size_t>(outputs)), multiplier(bias.size());
  for (int32_t& b : bias) b = static_cast<int32_t>(wild ? from.word() : from.number());
  for (int32_t& m : multiplier) m = static_cast<int32_t>(wild ? from.word() : from.word() >> 1);
  return {Array(from.take(static_cast<size_t>(outputs * inputs)), DType::i8, {outputs, inputs}),
          Array(bias, DType::i32, {outputs}), Array(multiplier, DType::i32, {outputs}),
          static_cast<int>(from.byte() % 65)};
}

void causal(Source from) {
  const int64_t K = 1 + from.byte() % 20, E = 1 + from.byte() % 4;
  const int precision = static_cast<int>(from.byte() % 27);
  const auto around = neighbours_of(from, 4);
  std::vector<uint8_t> codes = from.take(static_cast<size_t>((K + 1) * E));
  for (uint8_t& code : codes) code = static_cast<uint8_t>(code == 255 ? code : code % 128);
  std::vector<LayerArrays> arrays;
  int64_t inputs = E * static_cast<int64_t>(around.size());
  for (uint32_t k = from.byte() % 3; k > 0; --k) {
    const int64_t outputs = 1 + from.byte() % 20;
    arrays.push_back(layer_of(from, outputs, inputs));
    inputs = outputs;
  }
  arrays.push_back(layer_of(from, from.byte() == 255 ? 3 : K, inputs));
  Vector<cpu::PriorLayer> layers;
  for (const auto& a : arrays) {
    layers.push_back({a.weights.view(), a.bias.view(), a.multiplier.view(), a.shift});
  }
  const Array table(codes, DType::u8, {K + 1, E});
  const cpu::CausalPrior prior(table.view(), around, layers, precision);
  Poll nobody;
  both_ways(
      from, static_cast<uint32_t>(K),
      [&](cpu::Encoder& encoder, const TensorView& map) {
        cpu::causal_put(encoder, prior, map, nobody);
      },
      [&](RangeDecoder& decoder, const TensorView& map) {
        cpu::causal_get(decoder, prior, map, nobody);
      });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  refused([&] { adaptive({data, data + size}); });
  refused([&] { causal({data, data + size}); });
  return 0;
}
