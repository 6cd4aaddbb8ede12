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

// One, two or four borrowed encoders or decoders; symbol i belongs to lane i mod size().
template <class Coder>
class Lanes {
 public:
  Lanes(Coder& one) : first_(&one), size_(1) {}
  Lanes(Vector<Coder>& several) : first_(several.data()), size_(several.size()) {}
  size_t size() const { return size_; }
  Coder* begin() const { return first_; }
  Coder* end() const { return first_ + size_; }
  Coder& operator[](size_t lane) const { return first_[lane]; }

 private:
  Coder* first_;
  size_t size_;
};

// symbols [n] by table index[i]; without index by table 0. ArgumentError for an index that is no
// table, a symbol outside int32 or, without escape, outside the alphabet; the encoders are then
// lost.
void range64_put(Lanes<Encoder> lanes, const Tables& tables, const TensorView& symbols,
                 const TensorView* index, Poll& poll);

// The inverse. CorruptDataError for what no encoder writes and for symbols that do not fit the
// dtype of the output.
void range64_get(Lanes<RangeDecoder> lanes, const Tables& tables, const TensorView* index,
                 const TensorView& symbols, Poll& poll);

// One message of all lanes, and back: CorruptDataError for lengths that do not fit. The decoders
// borrow the bytes.
Vector<uint8_t> range64_join(Lanes<Encoder> lanes);
Vector<RangeDecoder> range64_split(const uint8_t* data, size_t size, int lanes);

// A cumulative table of its own for each symbol: cdf [n, L + 1] int32, rising from 0 to 2^16.
// symbols [n] int32. ArgumentError for a row that does not rise and a symbol outside 0 .. L - 1.
void range64_put_rows(Encoder& encoder, const TensorView& cdf, const TensorView& symbols,
                      Poll& poll);
void range64_get_rows(RangeDecoder& decoder, const TensorView& cdf, const TensorView& symbols,
                      Poll& poll);

// Many messages at once, shared out among threads: message k holds the symbols ends[k-1] ..
// ends[k] - 1 (from 0), and the bytes byte_ends[k-1] .. byte_ends[k] - 1 of all of them. Errors
// name the message. Decoded messages must be finished.
Vector<uint8_t> range64_put_many(const Tables& tables, const TensorView& symbols,
                                 const TensorView* index, const int64_t* ends, int64_t messages,
                                 int64_t* byte_ends, Poll& poll);
struct ManyMessages {
  const uint8_t* data;
  const int64_t* byte_ends;
  const int64_t* ends;
  int64_t count;
};
void range64_get_many(const Tables& tables, const ManyMessages& messages, const TensorView* index,
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
