// SPDX-License-Identifier: Apache-2.0
// Maps [h, w] of symbols through adaptive models. Contract: csrc/common/adaptive.h.
//
// An input's context is made of symbols to the left and above: bits_of(count) highest bits of each
// of its neighbours, the first one highest; what lies outside the map is 0.
#pragma once

#include <cstdint>

#include "common/adaptive.h"
#include "common/alloc.h"
#include "common/poll.h"
#include "cpu/range64.h"

namespace otcuda::cpu {

struct Neighbour {
  int32_t dy, dx;  // dy < 0, or dy = 0 and dx < 0
};

struct AdaptiveModel {
  int bits, fast, slow;  // rates 1 .. 15
  Vector<Vector<Neighbour>> inputs;
  Vector<uint16_t> counters;  // input after input: [contexts, 2^bits, 2]
  Vector<int32_t> weights;    // [bits, inputs]

  int context_bits(size_t input) const;
  int64_t counters_needed() const;
  void check() const;  // ArgumentError where the contract does not hold
};

// The model learns from the map; what it then holds is up to the caller. Symbols are below 2^bits:
// ArgumentError, CorruptDataError otherwise.
void adaptive_put(Encoder& encoder, AdaptiveModel& model, const TensorView& map, Poll& poll);
void adaptive_get(RangeDecoder& decoder, AdaptiveModel& model, const TensorView& map, Poll& poll);
void adaptive_learn(AdaptiveModel& model, const TensorView& map, Poll& poll);

}  // namespace otcuda::cpu
