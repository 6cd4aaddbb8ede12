// SPDX-License-Identifier: Apache-2.0
// Whole arrays through range64. Contract: csrc/common/range64.h, csrc/common/tables.h.
//
// Arrays are contiguous, in host memory, of any integer dtype. Every element is checked when it is
// read, so nothing that another thread writes meanwhile leads out of bounds.
#pragma once

#include <cstdint>

#include "common/alloc.h"
#include "common/poll.h"
#include "common/range64.h"
#include "common/tensor_view.h"
#include "cpu/tables.h"

namespace otcuda::cpu {

using Encoder = BasicRangeEncoder<Vector<uint8_t>>;

// symbols [n] by table index[i]; without index by table 0. ArgumentError for an index that is no
// table, a symbol outside int32 or, without escape, outside the alphabet; the encoder is then lost.
void range64_put(Encoder& encoder, const Tables& tables, const TensorView& symbols,
                 const TensorView* index, Poll& poll);

// The inverse. CorruptDataError for what no encoder writes and for symbols that do not fit the
// dtype of the output.
void range64_get(RangeDecoder& decoder, const Tables& tables, const TensorView* index,
                 const TensorView& symbols, Poll& poll);

// The ArgumentErrors of both, before anything is coded.
void range64_check_symbols(const Tables& tables, const TensorView& symbols);
void range64_check_index(const Tables& tables, const TensorView& index);

// values [n] by steps without tables: k bits, uniform among count, p1[i] in 2^P, Exp-Golomb.
// ArgumentError for the first value out of bounds, before any is coded.
void range64_put_bits(Encoder& encoder, const TensorView& values, int k);
void range64_put_uniform(Encoder& encoder, const TensorView& values, uint32_t count);
void range64_put_bit(Encoder& encoder, const TensorView& values, const TensorView& p1, int P);
void range64_put_exp_golomb(Encoder& encoder, const TensorView& values);

// Their inverses; the values are int64.
void range64_get_bits(RangeDecoder& decoder, const TensorView& values, int k);
void range64_get_uniform(RangeDecoder& decoder, const TensorView& values, uint32_t count);
void range64_get_bit(RangeDecoder& decoder, const TensorView& values, const TensorView& p1, int P);
void range64_get_exp_golomb(RangeDecoder& decoder, const TensorView& values);

// Order-free check of symbols: sum_i (s_i + 1) K(i) mod 2^32, K(i) odd; docs/coding.md.
uint32_t symbol_sum(const TensorView& symbols);

}  // namespace otcuda::cpu
