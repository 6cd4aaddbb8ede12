// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>
#include <string>
#include <type_traits>

#include "cuda/rans32.h"
#include "cuda/rans32_job.cuh"

namespace otcuda::cuda {
namespace {

constexpr int64_t kSharedBytes = 64 << 10;  // of tables; larger ones stay in global memory
constexpr int64_t kMostBlocks = 1 << 28;    // so that no sum of sizes overflows
constexpr uint32_t kWindow = 64;            // words that a warp loads at once

// ---- where blocks begin

__global__ void __launch_bounds__(kScanThreads)
    rans32_offsets_kernel(const uint32_t* __restrict__ directory, int64_t count,
                          int64_t* __restrict__ offsets) {
  OTCUDA_SHARED(totals, int64_t[32]);
  int64_t carry = 0;
  for (int64_t first = 0; first < count; first += kScanThreads) {
    const int64_t k = first + threadIdx.x;
    const int64_t bytes =
        k < count ? rans_padded(rans_block_bytes(directory[3 * k], directory[3 * k + 1])) : 0;
    const SumInOrder sum = sum_in_order(bytes, totals);
    if (k < count) offsets[k] = carry + sum.upto - bytes;
    carry += sum.all;
  }
  if (threadIdx.x == 0) offsets[count] = carry;
}

// ---- decoding

// The words of a block. A ring in shared memory holds the window that is read now and the next
// one; the one after them is on its way into a register, two words a lane, so that no step waits
// for memory.
struct WordReader {
  uint32_t* ring;  // [kWindow], of this warp
  const uint32_t* pairs;
  int64_t left;  // pairs of the block that were not loaded yet
  uint32_t coming;
  uint32_t taken;  // words; no block needs 2^32 of them
  uint32_t limit;  // of the window that is read now

  // Past the last word come side bytes, then zeros, and `taken` tells.
  __device__ __forceinline__ uint32_t load() {
    const uint32_t pair = lane_of() < left ? pairs[lane_of()] : 0;
    pairs += kWindow / 2;
    left -= kWindow / 2;
    return pair;
  }
  __device__ __forceinline__ WordReader(uint32_t* own, const uint8_t* from, uint32_t words)
      : ring(own),
        pairs(reinterpret_cast<const uint32_t*>(from)),
        left((int64_t{words} + 1) / 2),
        taken(0),
        limit(kWindow) {
    __syncwarp();  // all lanes have read the ring of the block before
    ring[lane_of()] = load();
    ring[kWindow / 2 + lane_of()] = load();
    __syncwarp();
    coming = load();
  }

  // Lanes that are hungry take the next words in ascending order.
  __device__ __forceinline__ uint32_t refill(uint32_t x, bool hungry) {
    const unsigned ballot = __ballot_sync(kAll, hungry);
    const uint32_t at = (taken + __popc(ballot & lanes_below())) % (2 * kWindow);
    const uint32_t word = reinterpret_cast<const uint16_t*>(ring)[at];
    taken += __popc(ballot);
    return hungry ? x << 16 | word : x;
  }
  // To be called where is_due() says so, before the next refill.
  __device__ __forceinline__ bool is_due() const { return taken >= limit; }
  __device__ __forceinline__ void move() {
    __syncwarp();  // all lanes have read
    ring[(limit - kWindow) % (2 * kWindow) / 2 + lane_of()] = coming;
    __syncwarp();
    coming = load();
    limit += kWindow;
  }
};

// The value of each escaped lane of a group: all lanes read the side bytes together, since a value
// tells only at its end where the next one begins.
struct SideReader {
  const uint8_t* next;
  const uint8_t* end;

  __device__ __forceinline__ uint32_t patch(const RansJob& job, int64_t block, unsigned escaped,
                                            uint32_t table, uint32_t symbol) {
    const RansShape& tables = job.tables;
    for (; escaped != 0; escaped &= escaped - 1) {
      int64_t offset = 0;
      const int bytes = rans_side_offset(next, end, tables.side_width(), &offset);
      next += bytes;
      if (lane_of() != __ffs(int(escaped)) - 1) continue;
      const int64_t value = tables.low + offset;
      bool good = bytes != 0 && value >= INT32_MIN && value <= INT32_MAX;
      if (good && offset >= 0 && offset < tables.symbols) {  // escaped without need?
        good = job.intervals[table * tables.symbols + offset] >> 16 == 0;
      }
      if (!good) note_fault(job, block, RansFault::side);
      symbol = uint32_t(value);
    }
    return symbol;
  }
};

// Where a warp stands in a block.
template <class Symbol>
struct BlockState {
  Symbol* symbols;
  int64_t begin;   // of the block in the message
  int length, at;  // symbols; the first of the group
  uint32_t x, check;
  WordReader reader;
  SideReader side;
};

// The 32 symbols from `at` on, or what is left of them, with all that may happen to them.
template <class Symbol, Search search>
__device__ __forceinline__ void decode_group(const RansJob& job, const Finder<search>& find,
                                             int64_t k, BlockState<Symbol>& s) {
  const int i = s.at + lane_of(), P = job.tables.precision;
  const bool inside = i < s.length;
  const uint32_t table = inside ? table_of(job, s.begin + i) : 0, mask = (1u << P) - 1;
  const uint32_t slot = s.x & mask;
  const bool escaped = job.tables.escape && slot == mask;  // not outside: there the state has ended
  RansFoundSlot found = {0, 1, 0};
  if (!escaped) found = find(table, slot);
  uint32_t symbol = uint32_t(job.tables.low) + found.symbol;
  if (inside) s.x = rans_pop(s.x, found.rank, found.frequency, P);
  s.x = s.reader.refill(s.x, s.x < kRansLow);
  const unsigned set = __ballot_sync(kAll, escaped);
  if (set != 0) symbol = s.side.patch(job, k, set, table, symbol);
  if (inside) {
    s.symbols[i] = Symbol(int32_t(symbol));
    if (int64_t(s.symbols[i]) != int32_t(symbol)) atomicMin(&job.faults[2], Word(s.begin + i));
    s.check += (symbol + 1) * check_weight(uint32_t(i));
  }
  s.at += 32;
}

// Whole groups, as long as nothing happens: up to an escape, an index that is no table, the window
// of words running out, or the last two groups. Index void: one table.
template <class Symbol, Search search, class Index>
__device__ __forceinline__ void decode_groups(const RansJob& job, const Finder<search>& find,
                                              BlockState<Symbol>& s) {
  constexpr bool kOne = std::is_same_v<Index, void>;
  using Loaded = std::conditional_t<kOne, uint8_t, Index>;
  const int P = job.tables.precision, last = s.length - 64, lane = lane_of();
  const uint32_t mask = (1u << P) - 1, escape_slot = job.tables.escape ? mask : ~0u;
  const uint32_t low = uint32_t(job.tables.low), count = uint32_t(job.tables.count);
  const Loaded* index = static_cast<const Loaded*>(job.index.data) + s.begin + s.at + lane;
  Symbol* symbols = s.symbols + s.at + lane;
  uint32_t table = 0;
  if (!kOne && s.at <= last) table = narrow_table(*index);
  while (s.at <= last && !s.reader.is_due()) {
    const uint32_t slot = s.x & mask;
    if (__any_sync(kAll, slot == escape_slot || (!kOne && table >= count))) break;
    const RansFoundSlot found = find(table, slot);
    if (!kOne) table = narrow_table(*(index += 32));
    s.x = rans_pop(s.x, found.rank, found.frequency, P);
    s.x = s.reader.refill(s.x, s.x < kRansLow);
    const uint32_t symbol = low + found.symbol;
    *symbols = Symbol(int32_t(symbol));
    symbols += 32;
    s.check += (symbol + 1) * check_weight(uint32_t(s.at + lane));
    s.at += 32;
  }
}

template <class Symbol, Search search>
__device__ __forceinline__ void decode_groups_by_index(const RansJob& job,
                                                       const Finder<search>& find,
                                                       BlockState<Symbol>& s) {
  if (job.index.data == nullptr) return decode_groups<Symbol, search, void>(job, find, s);
  switch (job.index.dtype) {  // the same for all threads
    case DType::u8:
      return decode_groups<Symbol, search, uint8_t>(job, find, s);
    case DType::i16:
      return decode_groups<Symbol, search, int16_t>(job, find, s);
    case DType::i32:
      return decode_groups<Symbol, search, int32_t>(job, find, s);
    default:
      return decode_groups<Symbol, search, int64_t>(job, find, s);
  }
}

// Whether all symbols with a place of their own fit the dtype.
template <class Symbol>
__device__ __forceinline__ bool alphabet_fits(const RansShape& tables) {
  return tables.low >= int64_t(std::numeric_limits<Symbol>::min()) &&
         tables.low + tables.symbols - 1 <= int64_t(std::numeric_limits<Symbol>::max());
}

// One block of a message by one warp.
template <class Symbol, Search search>
__device__ __forceinline__ void decode_block(const RansJob& job, const Finder<search>& find,
                                             int64_t k, uint32_t* ring) {
  const int lane = lane_of();
  const int64_t begin = k * job.block;
  const uint32_t words = job.directory[3 * k], side_bytes = job.directory[3 * k + 1];
  const int64_t bytes = rans_block_bytes(words, side_bytes), padded = rans_padded(bytes);
  const int64_t room = min(*job.size, job.capacity) - job.offsets[k];
  if (bytes > room || padded > room) {
    if (lane == 0) note_fault(job, k, bytes > room ? RansFault::beyond : RansFault::padding);
    return;  // all lanes
  }
  const uint8_t* from = job.data + job.offsets[k];
  BlockState<Symbol> s = {static_cast<Symbol*>(job.symbols) + begin,
                          begin,
                          int(min(job.block, job.n - begin)),
                          0,
                          reinterpret_cast<const uint32_t*>(from)[lane],
                          0,
                          WordReader(ring, from + kRansStateBytes, words),
                          {from + bytes - side_bytes, from + bytes}};
  if (s.x < kRansLow) note_fault(job, k, RansFault::state);
  if (bytes + lane < padded && from[bytes + lane] != 0) note_fault(job, k, RansFault::padding);
  const bool fits = alphabet_fits<Symbol>(job.tables);
  while (s.at < s.length) {
    if (fits) decode_groups_by_index(job, find, s);
    if (s.reader.is_due()) {
      s.reader.move();
    } else {
      decode_group(job, find, k, s);
    }
  }
  if (s.x != kRansLow || s.side.next != s.side.end) note_fault(job, k, RansFault::unfinished);
  const uint32_t check = sum_of_warp(s.check);
  if (lane != 0) return;
  if (s.reader.taken > int64_t(words)) note_fault(job, k, RansFault::early);
  if (s.reader.taken < int64_t(words)) note_fault(job, k, RansFault::unfinished);
  if (check != job.directory[3 * k + 2]) note_fault(job, k, RansFault::check);
}

template <class Symbol, Search search>
__global__ void __launch_bounds__(kMostThreads, 2) rans32_decode_kernel(RansJob job) {
  OTCUDA_DYNAMIC_SHARED(uint32_t, local);
  OTCUDA_SHARED(rings, uint32_t[kMostWarps][kWindow]);
  const RansShape& tables = job.tables;
  const uint32_t* image = job.image + (search == Search::direct ? tables.direct_at() : 0);
  if (search != Search::global) {
    const int words = int(search == Search::direct ? tables.direct_words() : tables.search_words());
    for (int i = int(threadIdx.x); i < words; i += int(blockDim.x)) local[i] = image[i];
    __syncthreads();
    image = local;
  }
  const Finder<search> find(tables, image);
  for (int64_t k = warp_of_grid(); k < job.count; k += warps_of_grid()) {
    decode_block<Symbol>(job, find, k, rings[threadIdx.x / 32]);
  }
  if (blockIdx.x == 0 && threadIdx.x == 0 && job.offsets[job.count] != *job.size) {
    note_fault(job, job.count, RansFault::left_over);
  }
}

// ---- launchers

struct EncodeScratch {
  int64_t slot;
  int64_t* offsets;
  uint32_t* states;
  uint16_t* words;
  uint8_t* sides;

  EncodeScratch(Workspace* workspace, const RansShape& tables, int64_t n, int64_t block)
      : slot(std::min(block, ceil_div(n, 32) * 32)) {
    const int64_t count = ceil_div(n, block);
    offsets = workspace->take<int64_t>(count + 1);
    states = workspace->take<uint32_t>(count * kRansLanes);
    words = workspace->take<uint16_t>(count * slot);
    sides = workspace->take<uint8_t>(tables.escape ? count * slot * kRansSideBytes : 0);
  }
};

RansJob job_of(const RansCall& call) {
  const int64_t n = call.symbols.shape[0], count = ceil_div(n, call.block);
  OTCUDA_CHECK(count <= kMostBlocks, "rans32 on CUDA takes at most 2^28 blocks; got " +
                                         std::to_string(count) +
                                         ", so block_symbols must be larger");
  OTCUDA_CHECK(reinterpret_cast<uintptr_t>(call.data.data) % 4 == 0,
               "rans32 on CUDA takes data aligned to 4 bytes");
  const uint32_t* image = call.image.read<uint32_t>();
  RansJob job = {};
  job.tables = call.tables;
  job.image = image;
  job.intervals = image + call.tables.intervals_at();
  if (call.index != nullptr) job.index = {call.index->data, call.index->dtype};
  job.symbols = call.symbols.data;
  job.n = n;
  job.block = call.block;
  job.count = count;
  job.data = call.data.write<uint8_t>();
  job.capacity = call.data.size();
  job.directory = call.directory.write<uint32_t>();
  job.size = call.size.write<int64_t>();
  job.faults = call.faults.write<Word>();
  return job;
}

template <class Symbol, Search search>
void launch_decode(const RansJob& job, int64_t shared_bytes, cudaStream_t stream) {
  check_cuda(cudaFuncSetAttribute(rans32_decode_kernel<Symbol, search>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, int(kSharedBytes)),
             "rans32");
  const Team team = team_of(job.count);
  OTCUDA_LAUNCH((rans32_decode_kernel<Symbol, search>), team.grid, team.block, size_t(shared_bytes),
                stream, job);
  check_launch("rans32");
}

template <class Symbol>
void decode_as(const RansJob& job, cudaStream_t stream) {
  const int64_t direct = 4 * job.tables.direct_words(), search = 4 * job.tables.search_words();
  if (direct > 0) {
    launch_decode<Symbol, Search::direct>(job, direct, stream);
  } else if (search <= kSharedBytes) {
    launch_decode<Symbol, Search::shared>(job, search, stream);
  } else {
    launch_decode<Symbol, Search::global>(job, 0, stream);
  }
}

void scan_offsets(const RansJob& job, cudaStream_t stream) {
  OTCUDA_LAUNCH(rans32_offsets_kernel, dim3{1}, dim3{kScanThreads}, 0, stream, job.directory,
                job.count, job.offsets);
  check_launch("rans32");
}

}  // namespace

int64_t rans32_bound(const RansShape& tables, int64_t n, int64_t block) {
  return ceil_div(n, block) * (kRansStateBytes + 4) + n * (tables.escape ? 2 + kRansSideBytes : 2);
}

int64_t rans32_encode_workspace(const RansShape& tables, int64_t n, int64_t block) {
  Workspace count;
  EncodeScratch(&count, tables, n, block);
  return count.used();
}

int64_t rans32_decode_workspace(int64_t n, int64_t block) {
  Workspace count;
  count.take<int64_t>(ceil_div(n, block) + 1);
  return count.used();
}

void rans32_encode(const RansCall& call, const TensorView& workspace, uintptr_t stream) {
  RansJob job = job_of(call);
  const int64_t bound = rans32_bound(call.tables, job.n, job.block);
  OTCUDA_CHECK(job.capacity >= bound, "data has " + std::to_string(job.capacity) +
                                          " bytes, expected at least " + std::to_string(bound));
  const DeviceGuard guard(call.data);
  Workspace pieces("rans32", workspace);
  const EncodeScratch scratch(&pieces, call.tables, job.n, job.block);
  job.offsets = scratch.offsets;
  job.states = scratch.states;
  job.words = scratch.words;
  job.sides = scratch.sides;
  job.slot = scratch.slot;
  check_cuda(cudaMemsetAsync(job.faults, 0xFF, 3 * sizeof(Word), stream_of(stream)), "rans32");
  rans32_encode_blocks(job, call.symbols.dtype, stream_of(stream));
  scan_offsets(job, stream_of(stream));
  rans32_compact(job, stream_of(stream));
}

void rans32_decode(const RansCall& call, const TensorView& workspace, uintptr_t stream) {
  RansJob job = job_of(call);
  const DeviceGuard guard(call.data);
  Workspace pieces("rans32", workspace);
  job.offsets = pieces.take<int64_t>(job.count + 1);
  check_cuda(cudaMemsetAsync(job.faults, 0xFF, 3 * sizeof(Word), stream_of(stream)), "rans32");
  scan_offsets(job, stream_of(stream));
  with_symbol(call.symbols.dtype, [&](auto* type) {
    decode_as<std::remove_pointer_t<decltype(type)>>(job, stream_of(stream));
  });
}

}  // namespace otcuda::cuda
