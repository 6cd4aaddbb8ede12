// SPDX-License-Identifier: Apache-2.0
// range64 on a CUDA device, many messages at once, one a thread; contract in common/range64.h,
// format in docs/coding.md, one lane. The bytes are those of the CPU.
#pragma once

#include <cstdint>

#include "common/range64_symbols.h"
#include "common/rans32_lookup.h"
#include "common/tensor_view.h"

namespace otcuda::cuda {

// A call, everything on one device. Message k holds the symbols ends[k-1] .. ends[k] - 1 (from 0)
// and the bytes byte_ends[k-1] .. byte_ends[k] - 1. faults tells once the stream is done what could
// not be done, -1 where all is well: the lowest (message << 8 | RangeFault); the first index that
// is no table; the first symbol without a code (encoding) or that does not fit its dtype
// (decoding). Nothing is read or written out of bounds whatever ends, bytes and index hold; where
// ends are none, no message is coded.
struct RangeCall {
  RansShape tables;
  TensorView image;         // uint32 [tables.words()]: common/rans32_lookup.h
  TensorView symbols;       // [n], uint8, int16, int32 or int64
  const TensorView* index;  // [n], uint8, int16, int32 or int64; null: table 0
  TensorView ends;          // int64 [messages], the last one n
  TensorView data;          // uint8 [bytes], messages one after the other
  TensorView byte_ends;     // int64 [messages]
  TensorView faults;        // int64 [3], out
};

// Bytes that data must have for any n symbols of a dtype: the longest code of one, and 4 a
// message. Without escape a symbol takes at most (P + 1) / 8 bytes, with it 13.
int64_t range64_bound(const RansShape& tables, DType symbols, int64_t n, int64_t messages);

// Bytes of workspace: as range64_bound and 8 a message for encoding, a few for decoding.
int64_t range64_encode_workspace(const RansShape& tables, DType symbols, int64_t n,
                                 int64_t messages);
int64_t range64_decode_workspace();

// symbols, ends -> data, byte_ends.
void range64_encode(const RangeCall& call, const TensorView& workspace, uintptr_t stream);

// data, byte_ends, ends -> symbols; those of a refused message are not defined.
void range64_decode(const RangeCall& call, const TensorView& workspace, uintptr_t stream);

}  // namespace otcuda::cuda
