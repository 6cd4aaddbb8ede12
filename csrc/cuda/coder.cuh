// SPDX-License-Identifier: Apache-2.0
// What the coders share on a device: integers of any dtype, tables, sums in order.
#pragma once

#include <cstdint>

#include "common/rans32_lookup.h"
#include "common/tensor_view.h"
#include "cuda/shim.cuh"

namespace otcuda::cuda {

using Word = unsigned long long;  // CUDA's name for the 64 bits of an atomic

constexpr unsigned kAll = ~0u;
constexpr int kScanThreads = 1024;

// Index or symbols: uint8, int16, int32 or int64.
struct Integers {
  const void* data;  // null: zeros
  DType dtype;
};

__device__ __forceinline__ int64_t load_integer(const Integers& from, int64_t i) {
  switch (from.dtype) {  // the same for all threads
    case DType::u8:
      return static_cast<const uint8_t*>(from.data)[i];
    case DType::i16:
      return static_cast<const int16_t*>(from.data)[i];
    case DType::i32:
      return static_cast<const int32_t*>(from.data)[i];
    default:
      return static_cast<const int64_t*>(from.data)[i];
  }
}

// Table of symbol i, always one that exists; an index that is none is noted in fault.
__device__ __forceinline__ uint32_t load_table(const Integers& index, int64_t count, int64_t i,
                                               Word* fault) {
  if (index.data == nullptr) return 0;
  const int64_t table = load_integer(index, i);
  if (table >= 0 && table < count) return uint32_t(table);
  atomicMin(fault, Word(i));
  return 0;
}

__device__ __forceinline__ int lane_of() { return int(threadIdx.x) % 32; }
__device__ __forceinline__ unsigned lanes_below() { return (1u << lane_of()) - 1; }
__device__ __forceinline__ int64_t warp_of_grid() {
  return int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
}
__device__ __forceinline__ int64_t warps_of_grid() {
  return int64_t(gridDim.x) * (blockDim.x / 32);
}

// For all kScanThreads of a block at once.
struct SumInOrder {
  int64_t upto;  // of the values of this thread and those before it
  int64_t all;
};
__device__ __forceinline__ SumInOrder sum_in_order(int64_t value, int64_t (&totals)[32]) {
  const int lane = lane_of(), warp = int(threadIdx.x) / 32;
  int64_t sum = value;
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const int64_t below = __shfl_up_sync(kAll, sum, d);
    if (lane >= d) sum += below;
  }
  if (lane == 31) totals[warp] = sum;
  __syncthreads();
  int64_t before = 0, all = 0;
  for (int w = 0; w < 32; ++w) {
    if (w < warp) before += totals[w];
    all += totals[w];
  }
  __syncthreads();  // totals may be used again
  return {before + sum, all};
}

// Symbols by slot: an entry a slot (direct), or the search of the CPU.
enum class Search { direct, shared, global };

template <Search search>
struct Finder {
  const uint32_t* direct;
  const uint32_t* kept_begin;
  const uint32_t* kept;
  const uint16_t* buckets;
  int precision, bucket_bits;

  __device__ __forceinline__ Finder(const RansShape& tables, const uint32_t* image)
      : direct(image),
        kept_begin(image),
        kept(image + tables.count),
        buckets(reinterpret_cast<const uint16_t*>(kept + tables.kept)),
        precision(tables.precision),
        bucket_bits(tables.bucket_bits) {}

  // Not for the slot of an escape.
  __device__ __forceinline__ RansFoundSlot operator()(uint32_t table, uint32_t slot) const {
    if (search == Search::direct) return rans_unpack(direct[table << precision | slot]);
    const uint32_t bucket = (table << bucket_bits) + (slot >> (precision - bucket_bits));
    return rans_walk(kept + kept_begin[table] + buckets[bucket], slot);
  }
};

}  // namespace otcuda::cuda
