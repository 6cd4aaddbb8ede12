// SPDX-License-Identifier: Apache-2.0
// Maps of symbols through a causal prior. Contract: csrc/common/causal_prior.h.
#pragma once

#include <cstdint>

#include "common/alloc.h"
#include "common/causal_prior.h"
#include "common/poll.h"
#include "common/tensor_view.h"
#include "cpu/adaptive.h"
#include "cpu/causal_prior_kernels.h"
#include "cpu/range64.h"

namespace otcuda::cpu {

// weights [outputs, inputs], bias and multiplier [outputs].
struct PriorLayer {
  TensorView weights, bias, multiplier;
  int shift;
};

// Immutable once made, so any number of threads may use one.
class CausalPrior {
 public:
  // codes [K + 1, E] u8. ArgumentError where the contract does not hold.
  CausalPrior(const TensorView& codes, Vector<Neighbour> neighbours,
              const Vector<PriorLayer>& layers, int precision);

  int64_t symbols() const { return symbols_; }
  int precision() const { return precision_; }

  // Of the symbol at (y, x) of a map of width w of which what lies before it is known.
  // frequencies [K], out.
  void foretell(PriorKernel kernel, const uint16_t* map, int64_t y, int64_t x, int64_t w,
                uint32_t* frequencies) const;

 private:
  struct Layer {
    Vector<int8_t> weights;
    Vector<int32_t> bias, multiplier;  // [blocks * 16]
    int64_t blocks = 0, quads = 0;
    int shift = 0;
  };
  void add_layer(const PriorLayer& given, int64_t inputs, int64_t outputs);

  int64_t symbols_, code_size_;
  int precision_;
  Vector<uint8_t> codes_;
  Vector<Neighbour> neighbours_;
  Vector<Layer> layers_;
};

// map [h, w] u16. ArgumentError for a symbol of K and more; CorruptDataError for what no encoder
// writes.
void causal_put(Encoder& encoder, const CausalPrior& prior, const TensorView& map, Poll& poll);
void causal_get(RangeDecoder& decoder, const CausalPrior& prior, const TensorView& map, Poll& poll);

}  // namespace otcuda::cpu
