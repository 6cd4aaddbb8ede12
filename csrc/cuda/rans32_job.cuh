// SPDX-License-Identifier: Apache-2.0
// What the two files of rans32 share: a call as its kernels see it, and how warps share it out.
#pragma once

#include <algorithm>
#include <string>

#include "common/check.h"
#include "cuda/coder.cuh"
#include "cuda/device.h"

namespace otcuda::cuda {

constexpr int kMostWarps = 16;  // that share a table
constexpr int kMostThreads = 32 * kMostWarps;

// A call as kernels see it.
struct RansJob {
  RansShape tables;
  const uint32_t* image;
  const uint32_t* intervals;
  Integers index;
  void* symbols;
  int64_t n, block, count;
  uint8_t* data;
  int64_t capacity;
  uint32_t* directory;
  int64_t* size;
  Word* faults;
  int64_t* offsets;  // [count + 1], of the blocks in data
  uint32_t* states;  // of an encoder, until its blocks have their places: [count, 32],
  uint16_t* words;   // [count, slot], filled from the end,
  uint8_t* sides;    // [count, slot * kRansSideBytes], filled from the end
  int64_t slot;
};

__device__ __forceinline__ void note_fault(const RansJob& job, int64_t block, RansFault fault) {
  atomicMin(&job.faults[0], Word(block) << 8 | Word(fault));
}

__device__ __forceinline__ uint32_t table_of(const RansJob& job, int64_t i) {
  return load_table(job.index, job.tables.count, i, &job.faults[1]);
}

// Table of a symbol as the index says, ~0 for what no table can be.
template <class Index>
__device__ __forceinline__ uint32_t narrow_table(Index table) {
  return uint64_t(int64_t(table)) >> 32 == 0 ? uint32_t(table) : ~0u;
}

__device__ __forceinline__ uint32_t sum_of_warp(uint32_t value) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) value += __shfl_xor_sync(kAll, value, d);
  return value;
}

// Warps that share a table: as many as keep every processor busy with a message of this size.
struct Team {
  dim3 grid, block;
};
inline Team team_of(int64_t count) {
  const int64_t cards = processors();
  const int64_t warps = std::clamp<int64_t>(ceil_div(count, cards), 1, kMostWarps);
  const int64_t blocks = std::clamp<int64_t>(ceil_div(count, warps), 1, 8 * cards);
  return {dim3{unsigned(blocks)}, dim3{unsigned(32 * warps)}};
}

// Calls f with a null pointer to the type of the symbols.
template <class Function>
void with_symbol(DType dtype, const Function& f) {
  if (dtype == DType::u8) return f(static_cast<uint8_t*>(nullptr));
  if (dtype == DType::i16) return f(static_cast<int16_t*>(nullptr));
  if (dtype == DType::i32) return f(static_cast<int32_t*>(nullptr));
  if (dtype == DType::i64) return f(static_cast<int64_t*>(nullptr));
  throw ArgumentError(std::string("rans32 on CUDA: symbols are ") + dtype_name(dtype) +
                      ", expected uint8, int16, int32 or int64");
}

// Blocks into their slots, and from there to their places, once the scan has told these.
void rans32_encode_blocks(const RansJob& job, DType symbols, cudaStream_t stream);
void rans32_compact(const RansJob& job, cudaStream_t stream);

}  // namespace otcuda::cuda
