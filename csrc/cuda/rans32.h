// SPDX-License-Identifier: Apache-2.0
// rans32 on a CUDA device, one warp a block; contract in common/rans32.h, format in docs/coding.md,
// how it is fast in docs/cuda.md. The bytes are those of the CPU.
#pragma once

#include <cstdint>

#include "common/rans32_lookup.h"
#include "common/tensor_view.h"

namespace otcuda::cuda {

// A call, everything on one device. faults tells once the stream is done what could not be done,
// -1 where all is well: the lowest (block << 8 | RansFault); the first index that is no table; the
// first symbol without a code (encoding) or that does not fit its dtype (decoding). Nothing is read
// or written out of bounds whatever data and directory hold.
struct RansCall {
  RansShape tables;
  TensorView image;         // uint32 [tables.words()]: common/rans32_lookup.h
  TensorView symbols;       // [n], uint8, int16, int32 or int64
  const TensorView* index;  // [n], uint8, int16, int32 or int64; null: table 0
  int64_t block;            // symbols of a block, a multiple of 32
  TensorView data;          // uint8 [bytes], aligned to 4 bytes
  TensorView directory;     // uint32 [blocks, 3]: words, side bytes, check
  TensorView size;          // int64 [1]: bytes of data in use
  TensorView faults;        // int64 [3], out
};

// Bytes that data must have for any n symbols: 9 a symbol with escape (2 without), 128 a block.
int64_t rans32_bound(const RansShape& tables, int64_t n, int64_t block);

// Bytes of workspace: as rans32_bound for encoding, 8 a block for decoding.
int64_t rans32_encode_workspace(const RansShape& tables, int64_t n, int64_t block);
int64_t rans32_decode_workspace(int64_t n, int64_t block);

// symbols -> data, directory, size.
void rans32_encode(const RansCall& call, const TensorView& workspace, uintptr_t stream);

// data, directory, size -> symbols; those of a refused block are not defined.
void rans32_decode(const RansCall& call, const TensorView& workspace, uintptr_t stream);

}  // namespace otcuda::cuda
