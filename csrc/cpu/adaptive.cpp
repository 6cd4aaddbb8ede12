// SPDX-License-Identifier: Apache-2.0
#include "cpu/adaptive.h"

#include <algorithm>
#include <string>

#include "common/check.h"

namespace otcuda::cpu {
namespace {

const std::array<int16_t, 4096>& stretches() {
  static const auto table = adaptive_stretch();
  return table;
}

const std::array<uint16_t, 4096>& squashes() {
  static const auto table = adaptive_squash();
  return table;
}

uint16_t moved(uint16_t chance, bool bit, int rate) {
  const int target = bit ? 65535 : 0;
  return static_cast<uint16_t>(chance + ((target - chance) >> rate));
}

// Predicts and learns one bit at a time.
class Mixer {
 public:
  explicit Mixer(AdaptiveModel& model)
      : model_(model), count_(model.inputs.size()), stretch_(stretches()), squash_(squashes()) {
    int64_t at = 0;
    for (size_t j = 0; j < count_; ++j) {
      first_[j] = at;
      at += int64_t{2} << (model.context_bits(j) + model.bits);
    }
  }

  void see(size_t input, uint32_t context) {
    context_[input] = &model_.counters[first_[input] + (int64_t{2 * context} << model_.bits)];
  }

  uint32_t predict(uint32_t node, int depth) {
    weights_ = &model_.weights[depth * count_];
    int64_t mixed = 0;
    uint32_t p = 0;
    for (size_t j = 0; j < count_; ++j) {
      counter_[j] = context_[j] + 2 * node;
      p = (uint32_t{counter_[j][0]} + counter_[j][1]) >> 1;
      seen_[j] = stretch_[p >> 4];
      mixed += int64_t{weights_[j]} * seen_[j];
    }
    if (count_ > 1) p = squash_[std::clamp<int64_t>((mixed >> 16) + 2048, 0, 4095)];
    p_ = std::clamp<uint32_t>(p, kAdaptiveLeast, 65536 - kAdaptiveLeast);
    return p_;
  }

  void learn(bool bit) {
    const int64_t error = (bit ? 65536 : 0) - int64_t{p_};
    for (size_t j = 0; j < count_; ++j) {
      counter_[j][0] = moved(counter_[j][0], bit, model_.fast);
      counter_[j][1] = moved(counter_[j][1], bit, model_.slow);
      const int64_t weight = weights_[j] + (error * seen_[j] >> 16);
      weights_[j] = static_cast<int32_t>(std::clamp<int64_t>(weight, INT32_MIN, INT32_MAX));
    }
  }

 private:
  AdaptiveModel& model_;
  size_t count_;
  const std::array<int16_t, 4096>& stretch_;
  const std::array<uint16_t, 4096>& squash_;
  int64_t first_[kAdaptiveInputsMax] = {};
  uint16_t* context_[kAdaptiveInputsMax] = {};
  uint16_t* counter_[kAdaptiveInputsMax] = {};
  int32_t seen_[kAdaptiveInputsMax] = {};
  int32_t* weights_ = nullptr;
  uint32_t p_ = 0;
};

uint32_t context_at(const Vector<Neighbour>& neighbours, int bits, const uint16_t* map, int64_t y,
                    int64_t x, int64_t w) {
  const int count = static_cast<int>(neighbours.size());
  if (count == 0) return 0;
  const int kept = count == 1 ? bits : std::max(1, std::min(bits, 8 / count));
  uint32_t context = 0;
  for (const Neighbour n : neighbours) {
    const bool inside = y + n.dy >= 0 && x + n.dx >= 0 && x + n.dx < w;
    const uint32_t symbol = inside ? map[(y + n.dy) * w + x + n.dx] : 0;
    context = context << kept | symbol >> (bits - kept);
  }
  return context;
}

// code(symbol so far, its highest bits; p, depth) gives each bit; seen is a copy that nobody else
// writes.
template <class Code>
void run(AdaptiveModel& model, int64_t h, int64_t w, uint16_t* seen, Poll& poll, const Code& code) {
  Mixer mixer(model);
  for (int64_t y = 0; y < h; ++y) {
    poll(double(y) / double(h));
    for (int64_t x = 0; x < w; ++x) {
      for (size_t j = 0; j < model.inputs.size(); ++j) {
        mixer.see(j, context_at(model.inputs[j], model.bits, seen, y, x, w));
      }
      uint32_t node = 1;
      for (int depth = 0; depth < model.bits; ++depth) {
        const uint32_t p = mixer.predict(node, depth);
        const bool bit = code(y * w + x, depth, p);
        mixer.learn(bit);
        node = 2 * node + (bit ? 1 : 0);
      }
      seen[y * w + x] = static_cast<uint16_t>(node - (1u << model.bits));
    }
  }
}

Vector<uint16_t> checked_symbols(const AdaptiveModel& model, const TensorView& map) {
  const auto* symbols = map.read<uint16_t>();
  Vector<uint16_t> copy(symbols, symbols + map.size());
  for (size_t i = 0; i < copy.size(); ++i) {
    OTCUDA_CHECK(copy[i] >> model.bits == 0, "symbols[" + std::to_string(i) + "] is " +
                                                 std::to_string(copy[i]) + ", expected 0 .. " +
                                                 std::to_string((1 << model.bits) - 1));
  }
  return copy;
}

}  // namespace

int AdaptiveModel::context_bits(size_t input) const {
  const int count = static_cast<int>(inputs[input].size());
  return count <= 1 ? count * bits : count * std::max(1, std::min(bits, 8 / count));
}

int64_t AdaptiveModel::counters_needed() const {
  int64_t needed = 0;
  for (size_t j = 0; j < inputs.size(); ++j) needed += int64_t{2} << (context_bits(j) + bits);
  return needed;
}

void AdaptiveModel::check() const {
  OTCUDA_CHECK(bits >= 1 && bits <= kAdaptiveBitsMax,
               "bits is " + std::to_string(bits) + ", expected 1 .. 12");
  OTCUDA_CHECK(fast >= 1 && fast <= 15 && slow >= 1 && slow <= 15, "rates lie outside 1 .. 15");
  OTCUDA_CHECK(!inputs.empty() && inputs.size() <= kAdaptiveInputsMax,
               "a model has 1 .. 8 contexts");
  for (const auto& input : inputs) {
    OTCUDA_CHECK(input.size() <= 8, "a context has at most 8 neighbours");
    for (const Neighbour n : input) {
      const bool known = n.dy < 0 || (n.dy == 0 && n.dx < 0);
      OTCUDA_CHECK(known && n.dy >= -4096 && n.dx >= -4096 && n.dx <= 4096,
                   "a neighbour lies neither above nor to the left, or over 4096 away");
    }
  }
  OTCUDA_CHECK(int64_t(counters.size()) == counters_needed(),
               "counters are not those of the contexts");
  OTCUDA_CHECK(weights.size() == inputs.size() * static_cast<size_t>(bits),
               "weights are not [bits, contexts]");
}

void adaptive_put(Encoder& encoder, AdaptiveModel& model, const TensorView& map, Poll& poll) {
  const Vector<uint16_t> symbols = checked_symbols(model, map);
  Vector<uint16_t> seen(symbols.size());
  run(model, map.shape[0], map.shape[1], seen.data(), poll, [&](int64_t i, int depth, uint32_t p) {
    const bool bit = (symbols[i] >> (model.bits - 1 - depth) & 1) != 0;
    encoder.bit(bit, p, 16);
    return bit;
  });
}

void adaptive_get(RangeDecoder& decoder, AdaptiveModel& model, const TensorView& map, Poll& poll) {
  Vector<uint16_t> seen(map.size());
  run(model, map.shape[0], map.shape[1], seen.data(), poll,
      [&](int64_t, int, uint32_t p) { return decoder.bit(p, 16); });
  if (decoder.corrupt()) throw CorruptDataError("the message holds a step that no encoder writes");
  std::copy(seen.begin(), seen.end(), map.write<uint16_t>());
}

void adaptive_learn(AdaptiveModel& model, const TensorView& map, Poll& poll) {
  const Vector<uint16_t> symbols = checked_symbols(model, map);
  Vector<uint16_t> seen(symbols.size());
  run(model, map.shape[0], map.shape[1], seen.data(), poll, [&](int64_t i, int depth, uint32_t) {
    return (symbols[i] >> (model.bits - 1 - depth) & 1) != 0;
  });
}

}  // namespace otcuda::cpu
