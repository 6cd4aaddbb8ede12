// SPDX-License-Identifier: Apache-2.0
// Encoding: from the last group to the first, each block in a slot of its own.
#include <type_traits>

#include "cuda/rans32.h"
#include "cuda/rans32_job.cuh"

namespace otcuda::cuda {
namespace {

struct SideWriter {
  uint8_t* begin;  // bytes are written in front of it

  __device__ __forceinline__ void put(const RansShape& tables, unsigned escaped, uint32_t symbol) {
    while (escaped != 0) {
      const int from = 31 - __clz(int(escaped));
      escaped ^= 1u << from;
      const int64_t offset = int64_t(int32_t(__shfl_sync(kAll, symbol, from))) - tables.low;
      const RansSide side = rans_side(offset, tables.side_width());
      begin -= side.length;
      if (lane_of() < side.length) begin[lane_of()] = uint8_t(side.bytes >> (8 * lane_of()));
    }
  }
};

// Where a warp stands in a block that it writes.
template <class Symbol>
struct WriterState {
  const Symbol* symbols;
  int64_t begin;   // of the block in the message
  int length, at;  // symbols; the first of the group
  uint32_t x, check;
  uint16_t* words;
  SideWriter side;

  __device__ __forceinline__ void put(const RansInterval& interval, bool inside, int P) {
    const bool full = inside && rans_full(x, interval.frequency, P);
    const unsigned ballot = __ballot_sync(kAll, full);
    words -= __popc(ballot);
    if (full) {
      words[__popc(ballot & lanes_below())] = uint16_t(x);
      x >>= 16;
    }
    if (inside) x = rans_push(x, interval.start, interval.frequency, P);
  }
};

// The 32 symbols from `at` on, or what is left of them, with all that may be with them.
template <class Symbol>
__device__ __forceinline__ void encode_group(const RansJob& job, WriterState<Symbol>& s) {
  const RansShape& tables = job.tables;
  const int i = s.at + lane_of(), P = tables.precision;
  const bool inside = i < s.length;
  const int64_t wide = inside ? int64_t(s.symbols[i]) : 0;
  const uint32_t symbol = uint32_t(wide), table = inside ? table_of(job, s.begin + i) : 0;
  const int64_t offset = wide - tables.low;
  const bool has_place = offset >= 0 && offset < tables.symbols;
  if (inside && (wide != int32_t(symbol) || !(has_place || tables.escape))) {
    atomicMin(&job.faults[2], Word(s.begin + i));
  }
  const int64_t at = has_place ? table * tables.symbols + offset : tables.count * tables.symbols;
  const RansInterval interval = rans_interval(job.intervals[at], P, tables.escape);
  s.put(interval, inside, P);
  const unsigned escaped = __ballot_sync(kAll, inside && interval.escaped);
  if (escaped != 0) s.side.put(tables, escaped, symbol);
  if (inside) s.check += (symbol + 1) * check_weight(uint32_t(i));
  s.at -= 32;
}

// Whole groups backwards, as long as every symbol has an interval by a table that exists.
template <class Symbol, class Index>
__device__ __forceinline__ void encode_groups(const RansJob& job, WriterState<Symbol>& s) {
  constexpr bool kOne = std::is_same_v<Index, void>;
  using Loaded = std::conditional_t<kOne, uint8_t, Index>;
  const int P = job.tables.precision, lane = lane_of();
  const uint32_t low = uint32_t(job.tables.low), count = uint32_t(job.tables.count);
  const uint32_t alphabet = uint32_t(job.tables.symbols), none = count * alphabet;
  const Loaded* index = static_cast<const Loaded*>(job.index.data) + s.begin + s.at + lane;
  const Symbol* symbols = s.symbols + s.at + lane;
  while (s.at >= 0) {
    const Symbol given = *symbols;
    const uint32_t symbol = uint32_t(given), table = kOne ? 0 : narrow_table(*index);
    const uint32_t offset = symbol - low;
    const bool fits = sizeof(Symbol) < 8 || int64_t(given) == int32_t(symbol);
    const bool has_place = fits && offset < alphabet && (kOne || table < count);
    const uint32_t word = job.intervals[has_place ? table * alphabet + offset : none];
    if (__any_sync(kAll, word >> 16 == 0)) break;
    s.put({word & 0xffff, word >> 16, false}, true, P);
    s.check += (symbol + 1) * check_weight(uint32_t(s.at + lane));
    symbols -= 32;
    if (!kOne) index -= 32;
    s.at -= 32;
  }
}

template <class Symbol>
__device__ __forceinline__ void encode_groups_by_index(const RansJob& job, WriterState<Symbol>& s) {
  if (job.index.data == nullptr) return encode_groups<Symbol, void>(job, s);
  switch (job.index.dtype) {  // the same for all threads
    case DType::u8:
      return encode_groups<Symbol, uint8_t>(job, s);
    case DType::i16:
      return encode_groups<Symbol, int16_t>(job, s);
    case DType::i32:
      return encode_groups<Symbol, int32_t>(job, s);
    default:
      return encode_groups<Symbol, int64_t>(job, s);
  }
}

template <class Symbol>
__device__ __forceinline__ void encode_block(const RansJob& job, int64_t k) {
  const int64_t begin = k * job.block;
  const int length = int(min(job.block, job.n - begin));
  uint16_t* const words_end = job.words + (k + 1) * job.slot;
  uint8_t* const side_end = job.sides + (k + 1) * job.slot * kRansSideBytes;
  WriterState<Symbol> s = {static_cast<const Symbol*>(job.symbols) + begin,
                           begin,
                           length,
                           (length - 1) / 32 * 32,
                           kRansLow,
                           0,
                           words_end,
                           {side_end}};
  while (s.at >= 0) {
    encode_group(job, s);
    encode_groups_by_index(job, s);
  }
  job.states[32 * k + lane_of()] = s.x;
  const uint32_t check = sum_of_warp(s.check);
  if (lane_of() != 0) return;
  job.directory[3 * k] = uint32_t(words_end - s.words);
  job.directory[3 * k + 1] = uint32_t(side_end - s.side.begin);
  job.directory[3 * k + 2] = check;
}

template <class Symbol>
__global__ void __launch_bounds__(kMostThreads, 2) rans32_encode_kernel(RansJob job) {
  for (int64_t k = warp_of_grid(); k < job.count; k += warps_of_grid()) {
    encode_block<Symbol>(job, k);
  }
}

// Each block to its place.
__global__ void __launch_bounds__(kMostThreads) rans32_compact_kernel(RansJob job) {
  const int lane = lane_of();
  for (int64_t k = warp_of_grid(); k < job.count; k += warps_of_grid()) {
    const uint32_t words = job.directory[3 * k], side = job.directory[3 * k + 1];
    const int64_t bytes = rans_block_bytes(words, side);
    uint8_t* const to = job.data + job.offsets[k];
    reinterpret_cast<uint32_t*>(to)[lane] = job.states[32 * k + lane];
    uint16_t* const words_to = reinterpret_cast<uint16_t*>(to + kRansStateBytes);
    const uint16_t* words_from = job.words + (k + 1) * job.slot - words;
    for (uint32_t i = uint32_t(lane); i < words; i += 32) words_to[i] = words_from[i];
    const uint8_t* side_from = job.sides + (k + 1) * job.slot * kRansSideBytes - side;
    for (uint32_t i = uint32_t(lane); i < side; i += 32) to[bytes - side + i] = side_from[i];
    if (bytes + lane < rans_padded(bytes)) to[bytes + lane] = 0;
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *job.size = job.offsets[job.count];
}

template <class Symbol>
void encode_as(const RansJob& job, cudaStream_t stream) {
  const Team team = team_of(job.count);
  OTCUDA_LAUNCH((rans32_encode_kernel<Symbol>), team.grid, team.block, 0, stream, job);
  check_launch("rans32");
}

}  // namespace

void rans32_encode_blocks(const RansJob& job, DType symbols, cudaStream_t stream) {
  with_symbol(symbols,
              [&](auto* type) { encode_as<std::remove_pointer_t<decltype(type)>>(job, stream); });
}

void rans32_compact(const RansJob& job, cudaStream_t stream) {
  const Team team = team_of(job.count);
  OTCUDA_LAUNCH(rans32_compact_kernel, team.grid, team.block, 0, stream, job);
  check_launch("rans32");
}

}  // namespace otcuda::cuda
