// SPDX-License-Identifier: Apache-2.0
#include "cpu/causal_prior.h"

#include <algorithm>
#include <string>
#include <utility>

#include "common/check.h"
#include "common/simd.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kPoll = 64;  // symbols

PriorKernel kernel_in_force() {
#if OTCUDA_X86_LEVELS
  if (simd_vnni()) return &prior_sums_vnni;
  if (simd_level() != SimdLevel::portable) return &prior_sums_avx2;
#endif
  return &prior_sums_portable;
}

int64_t padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

void require(bool good, const std::string& what) {
  if (!good) throw ArgumentError(what);
}

// log2 of chances to frequencies that sum to 2^P.
void to_frequencies(const int32_t* logs, int64_t K, int P, uint32_t* frequencies) {
  static const std::array<uint32_t, 256> kExp2 = prior_exp2();
  const int32_t most = *std::max_element(logs, logs + K);
  uint64_t sum = 0;
  int64_t best = 0;
  for (int64_t o = 0; o < K; ++o) {
    const int64_t fall = std::min<int64_t>(int64_t{most} - logs[o], kPriorFallMax);
    frequencies[o] = kExp2[fall & 255] >> (fall >> 8);
    sum += frequencies[o];
    if (frequencies[o] > frequencies[best]) best = o;
  }
  const uint64_t total = uint64_t{1} << P;
  const uint64_t inverse = ((total - static_cast<uint64_t>(K)) << 32) / sum;
  uint64_t given = 0;
  for (int64_t o = 0; o < K; ++o) {
    frequencies[o] = 1 + static_cast<uint32_t>(frequencies[o] * inverse >> 32);
    given += frequencies[o];
  }
  frequencies[best] += static_cast<uint32_t>(total - given);
}

// code(place, frequencies) gives the symbol that stands there.
template <class Code>
void run(const CausalPrior& prior, const TensorView& map, uint16_t* seen, Poll& poll,
         const Code& code) {
  const int64_t h = map.shape[0], w = map.shape[1];
  const PriorKernel kernel = kernel_in_force();
  Vector<uint32_t> frequencies(static_cast<size_t>(prior.symbols()));
  for (int64_t y = 0; y < h; ++y) {
    for (int64_t x = 0; x < w; ++x) {
      const int64_t i = y * w + x;
      if (i % kPoll == 0) poll(double(i) / double(h * w));
      prior.foretell(kernel, seen, y, x, w, frequencies.data());
      seen[i] = static_cast<uint16_t>(code(i, frequencies.data()));
    }
  }
}

}  // namespace

CausalPrior::CausalPrior(const TensorView& codes, Vector<Neighbour> neighbours,
                         const Vector<PriorLayer>& layers, int precision)
    : symbols_(codes.shape[0] - 1),
      code_size_(codes.shape[1]),
      precision_(precision),
      neighbours_(std::move(neighbours)) {
  require(symbols_ >= 2 && symbols_ <= kPriorWidthMax,
          "codes has " + std::to_string(symbols_ + 1) + " rows, expected 3 .. 4097 (K + 1)");
  require(
      precision >= 2 && precision <= kRangePrecisionMax && 2 * symbols_ <= int64_t{1} << precision,
      "precision is " + std::to_string(precision) + ", expected at most 24 and 2 K <= 2^P");
  for (const Neighbour n : neighbours_) {
    const bool known = n.dy < 0 || (n.dy == 0 && n.dx < 0);
    require(known && n.dy >= -4096 && n.dx >= -4096 && n.dx <= 4096,
            "a neighbour lies neither above nor to the left, or over 4096 away");
  }
  const int64_t inputs = code_size_ * static_cast<int64_t>(neighbours_.size());
  require(inputs >= 1 && inputs <= kPriorWidthMax,
          "the inputs are " + std::to_string(inputs) + ", expected 1 .. 4096");
  require(!layers.empty() && layers.size() <= kPriorLayersMax, "a prior has 1 .. 8 layers");
  const auto* bytes = codes.read<uint8_t>();
  codes_.assign(bytes, bytes + codes.size());
  require(*std::max_element(codes_.begin(), codes_.end()) <= kPriorActivationMax,
          "codes holds a number above 127");
  int64_t before = inputs;
  for (const PriorLayer& layer : layers) {
    const int64_t outputs = layer.weights.shape[0];
    add_layer(layer, before, outputs);
    before = outputs;
  }
  require(before == symbols_, "the last layer has " + std::to_string(before) +
                                  " outputs, expected " + std::to_string(symbols_));
}

void CausalPrior::add_layer(const PriorLayer& given, int64_t inputs, int64_t outputs) {
  const std::string name = "layer " + std::to_string(layers_.size());
  require(outputs >= 1 && outputs <= kPriorWidthMax && given.weights.shape[1] == inputs,
          name + " has weights [" + std::to_string(outputs) + ", " +
              std::to_string(given.weights.shape[1]) + "], expected [1 .. 4096, " +
              std::to_string(inputs) + "]");
  require(given.shift >= 1 && given.shift <= 62, name + " has a shift outside 1 .. 62");
  Layer layer;
  layer.shift = given.shift;
  layer.blocks = padded(outputs, kPriorBlock) / kPriorBlock;
  layer.quads = padded(inputs, kPriorQuad) / kPriorQuad;
  layer.bias.assign(static_cast<size_t>(layer.blocks * kPriorBlock), 0);
  layer.multiplier.assign(layer.bias.size(), 0);
  layer.weights.assign(layer.bias.size() * static_cast<size_t>(layer.quads * kPriorQuad), 0);
  for (int64_t o = 0; o < outputs; ++o) {
    layer.bias[o] = given.bias.read<int32_t>()[o];
    layer.multiplier[o] = given.multiplier.read<int32_t>()[o];
    int64_t most = std::max(int64_t{layer.bias[o]}, -int64_t{layer.bias[o]});
    for (int64_t i = 0; i < inputs; ++i) {
      const int8_t w = given.weights.read<int8_t>()[o * inputs + i];
      most += kPriorActivationMax * std::abs(int{w});
      const int64_t quad = o / kPriorBlock * layer.quads + i / kPriorQuad;
      layer.weights[(quad * kPriorBlock + o % kPriorBlock) * kPriorQuad + i % kPriorQuad] = w;
    }
    require(most >> 31 == 0, name + ", output " + std::to_string(o) + ": sums may reach 2^31");
    require(layer.multiplier[o] >= 0, name + " has a multiplier below 0");
  }
  layers_.push_back(std::move(layer));
}

void CausalPrior::foretell(PriorKernel kernel, const uint16_t* map, int64_t y, int64_t x, int64_t w,
                           uint32_t* frequencies) const {
  uint8_t input[kPriorWidthMax + kPriorBlock] = {};
  int32_t sums[kPriorWidthMax + kPriorBlock];
  uint8_t* to = input;
  for (const Neighbour n : neighbours_) {
    const bool inside = y + n.dy >= 0 && x + n.dx >= 0 && x + n.dx < w;
    const int64_t row = inside ? map[(y + n.dy) * w + x + n.dx] : symbols_;
    to = std::copy_n(codes_.data() + row * code_size_, code_size_, to);
  }
  for (const Layer& layer : layers_) {
    kernel({layer.weights.data(), layer.bias.data(), layer.blocks, layer.quads}, input, sums);
    const bool last = &layer == &layers_.back();
    for (int64_t o = 0; o < layer.blocks * kPriorBlock; ++o) {
      const int64_t r = prior_scaled(sums[o], layer.multiplier[o], layer.shift);
      if (last) {
        sums[o] = static_cast<int32_t>(std::clamp(r, -kPriorLogMax, kPriorLogMax));
      } else {
        input[o] = static_cast<uint8_t>(std::clamp<int64_t>(r, 0, kPriorActivationMax));
      }
    }
  }
  to_frequencies(sums, symbols_, precision_, frequencies);
}

void causal_put(Encoder& encoder, const CausalPrior& prior, const TensorView& map, Poll& poll) {
  const auto* given = map.read<uint16_t>();
  const Vector<uint16_t> symbols(given, given + map.size());
  for (size_t i = 0; i < symbols.size(); ++i) {
    require(symbols[i] < prior.symbols(), "symbols[" + std::to_string(i) + "] is " +
                                              std::to_string(symbols[i]) + ", expected 0 .. " +
                                              std::to_string(prior.symbols() - 1));
  }
  Vector<uint16_t> seen(symbols.size());
  run(prior, map, seen.data(), poll, [&](int64_t i, const uint32_t* frequencies) {
    uint32_t start = 0;
    for (int64_t s = 0; s < symbols[i]; ++s) start += frequencies[s];
    encoder.put(start, frequencies[symbols[i]], prior.precision());
    return symbols[i];
  });
}

void causal_get(RangeDecoder& decoder, const CausalPrior& prior, const TensorView& map,
                Poll& poll) {
  Vector<uint16_t> seen(static_cast<size_t>(map.size()));
  run(prior, map, seen.data(), poll, [&](int64_t, const uint32_t* frequencies) {
    const uint32_t slot = decoder.slot(prior.precision());
    uint32_t start = 0, s = 0;
    while (slot - start >= frequencies[s]) start += frequencies[s++];  // they sum to 2^P
    decoder.take(start, frequencies[s], prior.precision());
    return s;
  });
  if (decoder.corrupt()) throw CorruptDataError("the message holds a step that no encoder writes");
  std::copy(seen.begin(), seen.end(), map.write<uint16_t>());
}

}  // namespace otcuda::cpu
