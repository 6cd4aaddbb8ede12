// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>

#include "common/check.h"
#include "cuda/device.h"
#include "cuda/rans32.h"

namespace otcuda::cuda {
namespace {

using Word = unsigned long long;  // CUDA's name for the 64 bits of an atomic

constexpr unsigned kAll = ~0u;
constexpr int kMostWarps = 16;  // that share a table
constexpr int kMostThreads = 32 * kMostWarps;
constexpr int kScanThreads = 1024;
constexpr int64_t kSharedBytes = 64 << 10;  // of tables; larger ones stay in global memory
constexpr int64_t kMostBlocks = 1 << 28;    // so that no sum of sizes overflows
constexpr int kWindow = 64;                 // words that a warp holds in a register each

enum class Search { direct, shared, global };

// Index or symbols, of any of the dtypes.
struct Integers {
  const void* data;  // null: zeros
  DType dtype;
};

struct Job {
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

__device__ __forceinline__ int lane_of() { return int(threadIdx.x) % 32; }
__device__ __forceinline__ unsigned lanes_below() { return (1u << lane_of()) - 1; }
__device__ __forceinline__ int64_t warp_of_grid() {
  return int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
}
__device__ __forceinline__ int64_t warps_of_grid() {
  return int64_t(gridDim.x) * (blockDim.x / 32);
}

__device__ __forceinline__ void note_fault(const Job& job, int64_t block, RansFault fault) {
  atomicMin(&job.faults[0], Word(block) << 8 | Word(fault));
}

// Table of symbol i, always one that exists. What is negative or wide is none, nor is ~0.
__device__ __forceinline__ uint32_t load_table(const Job& job, int64_t i) {
  if (job.index.data == nullptr) return 0;
  uint32_t table;
  switch (job.index.dtype) {  // the same for all threads
    case DType::u8:
      table = static_cast<const uint8_t*>(job.index.data)[i];
      break;
    case DType::i16:
      table = uint32_t(int32_t(static_cast<const int16_t*>(job.index.data)[i]));
      break;
    case DType::i32:
      table = static_cast<const uint32_t*>(job.index.data)[i];
      break;
    default:
      const uint64_t wide = static_cast<const uint64_t*>(job.index.data)[i];
      table = wide >> 32 == 0 ? uint32_t(wide) : ~0u;
  }
  if (table < uint32_t(job.tables.count)) return table;
  atomicMin(&job.faults[1], Word(i));
  return 0;
}

// ---- where blocks begin

__global__ void __launch_bounds__(kScanThreads)
    rans32_offsets_kernel(const uint32_t* __restrict__ directory, int64_t count,
                          int64_t* __restrict__ offsets) {
  OTCUDA_SHARED(totals, int64_t[32]);
  const int t = int(threadIdx.x), lane = lane_of(), warp = t / 32;
  int64_t carry = 0;
  for (int64_t first = 0; first < count; first += kScanThreads) {
    const int64_t k = first + t;
    const int64_t bytes =
        k < count ? rans_padded(rans_block_bytes(directory[3 * k], directory[3 * k + 1])) : 0;
    int64_t sum = bytes;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const int64_t below = __shfl_up_sync(kAll, sum, d);
      if (lane >= d) sum += below;
    }
    if (lane == 31) totals[warp] = sum;
    __syncthreads();
    int64_t before = carry - bytes;
    for (int w = 0; w < 32; ++w) {
      if (w < warp) before += totals[w];
      carry += totals[w];
    }
    if (k < count) offsets[k] = before + sum;
    __syncthreads();  // before the totals of the next round
  }
  if (t == 0) offsets[count] = carry;
}

// ---- decoding

// The words of a block, two in a load: lane l holds words 2 l and 2 l + 1 of the window that is
// read now and of the next one, so that no step waits for memory.
struct WordReader {
  const uint32_t* pairs;
  int64_t left;  // pairs of the block that were not loaded yet
  uint32_t now, next;
  int place;       // in the window
  int64_t passed;  // words of earlier windows

  __device__ __forceinline__ uint32_t load() {
    const uint32_t pair = lane_of() < left ? pairs[lane_of()] : 0;
    pairs += kWindow / 2;
    left -= kWindow / 2;
    return pair;
  }
  __device__ __forceinline__ void start(const uint8_t* from, uint32_t words) {
    pairs = reinterpret_cast<const uint32_t*>(from);
    left = (int64_t{words} + 1) / 2;
    now = load();
    next = load();
    place = 0;
    passed = 0;
  }
  __device__ __forceinline__ int64_t taken() const { return passed + place; }

  // Lanes that are hungry take the next words in ascending order. Past the last word come zeros or
  // side bytes, and taken() tells.
  __device__ __forceinline__ uint32_t refill(uint32_t x, bool hungry) {
    const unsigned ballot = __ballot_sync(kAll, hungry);
    const int at = place + __popc(ballot & lanes_below());
    const uint32_t here = __shfl_sync(kAll, now, at / 2);
    const uint32_t there = __shfl_sync(kAll, next, at / 2);
    const uint32_t pair = at < kWindow ? here : there;
    const uint32_t word = at % 2 != 0 ? pair >> 16 : pair & 0xffff;
    place += __popc(ballot);
    if (place >= kWindow) {
      now = next;
      next = load();
      place -= kWindow;
      passed += kWindow;
    }
    return hungry ? x << 16 | word : x;
  }
};

// Symbols by slot, from tables that the threads of a block share.
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

  __device__ __forceinline__ RansFoundSlot operator()(uint32_t table, uint32_t slot,
                                                      bool escaped) const {
    if (search == Search::direct) return rans_unpack(direct[table << precision | slot]);
    if (escaped) return {0, 1, 0};
    const uint32_t bucket = (table << bucket_bits) + (slot >> (precision - bucket_bits));
    return rans_walk(kept + kept_begin[table] + buckets[bucket], slot);
  }
};

// The value of each escaped lane of a group: all lanes read the side bytes together, since a value
// tells only at its end where the next one begins.
struct SideReader {
  const uint8_t* next;
  const uint8_t* end;

  __device__ __forceinline__ uint32_t patch(const Job& job, int64_t block, unsigned escaped,
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

__device__ __forceinline__ uint32_t sum_of_warp(uint32_t value) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) value += __shfl_xor_sync(kAll, value, d);
  return value;
}

// One block of a message by one warp.
template <class Symbol, Search search>
__device__ __forceinline__ void decode_block(const Job& job, const Finder<search>& find,
                                             int64_t k) {
  const int lane = lane_of(), P = job.tables.precision;
  const int64_t begin = k * job.block;
  const int length = int(min(job.block, job.n - begin));
  const uint32_t words = job.directory[3 * k], side_bytes = job.directory[3 * k + 1];
  const int64_t bytes = rans_block_bytes(words, side_bytes), padded = rans_padded(bytes);
  const int64_t room = min(*job.size, job.capacity) - job.offsets[k];
  if (bytes > room || padded > room) {
    if (lane == 0) note_fault(job, k, bytes > room ? RansFault::beyond : RansFault::padding);
    return;  // all lanes
  }
  const uint8_t* from = job.data + job.offsets[k];
  uint32_t x = reinterpret_cast<const uint32_t*>(from)[lane];
  if (x < kRansLow) note_fault(job, k, RansFault::state);
  if (bytes + lane < padded && from[bytes + lane] != 0) note_fault(job, k, RansFault::padding);
  WordReader reader;
  reader.start(from + kRansStateBytes, words);
  SideReader side{from + bytes - side_bytes, from + bytes};

  const uint32_t mask = (1u << P) - 1, escape_slot = job.tables.escape ? mask : 1u << 31;
  Symbol* symbols = static_cast<Symbol*>(job.symbols) + begin;
  uint32_t check = 0, table = lane < length ? load_table(job, begin + lane) : 0;
  for (int i = lane; i - lane < length; i += 32) {
    const bool inside = i < length;
    const uint32_t next_table = i + 32 < length ? load_table(job, begin + i + 32) : 0;
    const uint32_t slot = x & mask;
    const bool escaped = slot == escape_slot;  // not outside: there the state has come to its end
    const RansFoundSlot found = find(table, slot, escaped);
    uint32_t symbol = uint32_t(job.tables.low) + found.symbol;
    if (inside) x = rans_pop(x, found.rank, found.frequency, P);
    x = reader.refill(x, x < kRansLow);
    const unsigned set = __ballot_sync(kAll, escaped);
    if (set != 0) symbol = side.patch(job, k, set, table, symbol);
    if (inside) {
      symbols[i] = Symbol(int32_t(symbol));
      if (int64_t(symbols[i]) != int32_t(symbol)) atomicMin(&job.faults[2], Word(begin + i));
      check += (symbol + 1) * check_weight(uint32_t(i));
    }
    table = next_table;
  }
  if (x != kRansLow || side.next != side.end) note_fault(job, k, RansFault::unfinished);
  check = sum_of_warp(check);
  if (lane != 0) return;
  if (reader.taken() > words) note_fault(job, k, RansFault::early);
  if (reader.taken() < words) note_fault(job, k, RansFault::unfinished);
  if (check != job.directory[3 * k + 2]) note_fault(job, k, RansFault::check);
}

template <class Symbol, Search search>
__global__ void __launch_bounds__(kMostThreads) rans32_decode_kernel(Job job) {
  OTCUDA_DYNAMIC_SHARED(uint32_t, local);
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
    decode_block<Symbol>(job, find, k);
  }
  if (blockIdx.x == 0 && threadIdx.x == 0 && job.offsets[job.count] != *job.size) {
    note_fault(job, job.count, RansFault::left_over);
  }
}

// ---- encoding: from the last group to the first, each block in a slot of its own

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

template <class Symbol>
__device__ __forceinline__ void encode_block(const Job& job, int64_t k) {
  const RansShape& tables = job.tables;
  const int lane = lane_of(), P = tables.precision;
  const int64_t begin = k * job.block;
  const int length = int(min(job.block, job.n - begin));
  const Symbol* symbols = static_cast<const Symbol*>(job.symbols) + begin;
  uint16_t* const words_end = job.words + (k + 1) * job.slot;
  uint16_t* words = words_end;
  uint8_t* const side_end = job.sides + (k + 1) * job.slot * kRansSideBytes;
  SideWriter side{side_end};
  uint32_t x = kRansLow, check = 0;
  for (int i = (length - 1) / 32 * 32 + lane; i >= 0; i -= 32) {
    const bool inside = i < length;
    const int64_t wide = inside ? int64_t(symbols[i]) : 0;
    const uint32_t symbol = uint32_t(wide), table = inside ? load_table(job, begin + i) : 0;
    const int64_t offset = wide - tables.low;
    const bool has_place = offset >= 0 && offset < tables.symbols;
    if (inside && (wide != int32_t(symbol) || !(has_place || tables.escape))) {
      atomicMin(&job.faults[2], Word(begin + i));
    }
    const int64_t at = has_place ? table * tables.symbols + offset : tables.count * tables.symbols;
    const RansInterval interval = rans_interval(job.intervals[at], P, tables.escape);
    const bool full = inside && rans_full(x, interval.frequency, P);
    const unsigned ballot = __ballot_sync(kAll, full);
    words -= __popc(ballot);
    if (full) {
      words[__popc(ballot & lanes_below())] = uint16_t(x);
      x >>= 16;
    }
    const unsigned escaped = __ballot_sync(kAll, inside && interval.escaped);
    if (escaped != 0) side.put(tables, escaped, symbol);
    if (inside) {
      x = rans_push(x, interval.start, interval.frequency, P);
      check += (symbol + 1) * check_weight(uint32_t(i));
    }
  }
  job.states[32 * k + lane] = x;
  check = sum_of_warp(check);
  if (lane != 0) return;
  job.directory[3 * k] = uint32_t(words_end - words);
  job.directory[3 * k + 1] = uint32_t(side_end - side.begin);
  job.directory[3 * k + 2] = check;
}

template <class Symbol>
__global__ void __launch_bounds__(kMostThreads) rans32_encode_kernel(Job job) {
  for (int64_t k = warp_of_grid(); k < job.count; k += warps_of_grid()) {
    encode_block<Symbol>(job, k);
  }
}

// Each block to its place.
__global__ void __launch_bounds__(kMostThreads) rans32_compact_kernel(Job job) {
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

Job job_of(const RansCall& call) {
  const int64_t n = call.symbols.shape[0], count = ceil_div(n, call.block);
  OTCUDA_CHECK(count <= kMostBlocks, "rans32 on CUDA takes at most 2^28 blocks; got " +
                                         std::to_string(count) +
                                         ", so block_symbols must be larger");
  OTCUDA_CHECK(reinterpret_cast<uintptr_t>(call.data.data) % 4 == 0,
               "rans32 on CUDA takes data aligned to 4 bytes");
  const uint32_t* image = call.image.read<uint32_t>();
  Job job = {};
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

// Warps that share a table: as many as keep every processor busy with a message of this size.
struct Team {
  dim3 grid, block;
};
Team team_of(int64_t count) {
  const int64_t cards = processors();
  const int64_t warps = std::clamp<int64_t>(ceil_div(count, cards), 1, kMostWarps);
  const int64_t blocks = std::clamp<int64_t>(ceil_div(count, warps), 1, 8 * cards);
  return {dim3{unsigned(blocks)}, dim3{unsigned(32 * warps)}};
}

template <class Symbol, Search search>
void launch_decode(const Job& job, int64_t shared_bytes, cudaStream_t stream) {
  check_cuda(cudaFuncSetAttribute(rans32_decode_kernel<Symbol, search>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, int(kSharedBytes)),
             "rans32");
  const Team team = team_of(job.count);
  OTCUDA_LAUNCH((rans32_decode_kernel<Symbol, search>), team.grid, team.block, size_t(shared_bytes),
                stream, job);
  check_launch("rans32");
}

template <class Symbol>
void decode_as(const Job& job, cudaStream_t stream) {
  const int64_t direct = 4 * job.tables.direct_words(), search = 4 * job.tables.search_words();
  if (direct > 0) {
    launch_decode<Symbol, Search::direct>(job, direct, stream);
  } else if (search <= kSharedBytes) {
    launch_decode<Symbol, Search::shared>(job, search, stream);
  } else {
    launch_decode<Symbol, Search::global>(job, 0, stream);
  }
}

template <class Symbol>
void encode_as(const Job& job, cudaStream_t stream) {
  const Team team = team_of(job.count);
  OTCUDA_LAUNCH((rans32_encode_kernel<Symbol>), team.grid, team.block, 0, stream, job);
  check_launch("rans32");
}

void scan_offsets(const Job& job, cudaStream_t stream) {
  OTCUDA_LAUNCH(rans32_offsets_kernel, dim3{1}, dim3{kScanThreads}, 0, stream, job.directory,
                job.count, job.offsets);
  check_launch("rans32");
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
  Job job = job_of(call);
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
  with_symbol(call.symbols.dtype, [&](auto* type) {
    encode_as<std::remove_pointer_t<decltype(type)>>(job, stream_of(stream));
  });
  scan_offsets(job, stream_of(stream));
  const Team team = team_of(job.count);
  OTCUDA_LAUNCH(rans32_compact_kernel, team.grid, team.block, 0, stream_of(stream), job);
  check_launch("rans32");
}

void rans32_decode(const RansCall& call, const TensorView& workspace, uintptr_t stream) {
  Job job = job_of(call);
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
