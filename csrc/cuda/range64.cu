// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>

#include "common/check.h"
#include "cuda/coder.cuh"
#include "cuda/device.h"
#include "cuda/range64.h"

namespace otcuda::cuda {
namespace {

constexpr int kThreads = 64;  // messages of a block: few, so that few messages meet many processors
constexpr int kCopyThreads = 256;
constexpr int64_t kMostMessages = int64_t(1) << 31;
constexpr int kSlotWords = 1;  // of a message beside its bits: what rounding to words takes

struct RangeJob {
  RansShape tables;
  const uint32_t* image;
  const uint32_t* intervals;
  Integers index;
  void* symbols;
  DType dtype;
  int bits;  // of the longest code of a symbol
  int64_t n, count;
  const int64_t* ends;
  uint8_t* data;
  int64_t capacity;
  int64_t* byte_ends;
  Word* faults;
  Word* wrong;      // the first message whose ends are none; all ones: none
  uint32_t* slots;  // of an encoder, until its messages have their places
  int64_t* sums;    // [count], of bytes, of each kScanThreads messages on their own
  int64_t* totals;  // of all messages before these
};

__device__ __forceinline__ void note_fault(const RangeJob& job, int64_t k, RangeFault fault) {
  atomicMin(&job.faults[0], Word(k) << 8 | Word(fault));
}

// Whether ends are those of consecutive parts of `total`; `whole`: of all of it.
__global__ void __launch_bounds__(kThreads)
    range64_ends_kernel(RangeJob job, const int64_t* __restrict__ ends, int64_t total, bool whole,
                        RangeFault fault) {
  const int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (k >= job.count) return;
  const int64_t begin = k == 0 ? 0 : ends[k - 1], end = ends[k];
  const bool good = begin <= end && end <= total;  // a negative begin is the end of a wrong one
  if (good && (!whole || k + 1 < job.count || end == total)) return;
  atomicMin(job.wrong, Word(k));
  note_fault(job, k, fault);
}

// ---- encoding

// The bytes of one message; no message outgrows its slot.
struct Slot {
  uint32_t* words = nullptr;
  uint32_t length = 0;

  OTCUDA_ON_BOTH uint8_t& operator[](size_t i) { return reinterpret_cast<uint8_t*>(words)[i]; }
  OTCUDA_ON_BOTH size_t size() const { return length; }
  OTCUDA_ON_BOTH uint8_t back() const {
    return reinterpret_cast<const uint8_t*>(words)[length - 1];
  }
  OTCUDA_ON_BOTH void push_back(uint8_t byte) { (*this)[length++] = byte; }
  OTCUDA_ON_BOTH void pop_back() { --length; }
};

// Until a message is finished, whole words are all that is written.
OTCUDA_ON_BOTH void push_word(Slot& slot, uint32_t word) {
  slot.words[slot.length / 4] =
      word >> 24 | (word >> 8 & 0xff00) | (word << 8 & 0xff0000) | word << 24;
  slot.length += 4;
}

__device__ __forceinline__ int64_t begin_of(const int64_t* ends, int64_t k) {
  return k == 0 ? 0 : ends[k - 1];
}

// Room for the longest codes of all symbols before, and kSlotWords a message: floor((a + b) / 32) -
// floor(a / 32) + 1 >= ceil(b / 32), the words of b bits.
__device__ __forceinline__ uint32_t* slot_of(const RangeJob& job, int64_t k) {
  return job.slots + begin_of(job.ends, k) * job.bits / 32 + kSlotWords * k;
}

__device__ __forceinline__ uint32_t encode_message(const RangeJob& job, int64_t k) {
  const RansShape& tables = job.tables;
  const int64_t end = job.ends[k], n = tables.symbols;
  BasicRangeEncoder<Slot> encoder(Slot{slot_of(job, k), 0});
  for (int64_t i = begin_of(job.ends, k); i < end; ++i) {
    const uint32_t table = load_table(job.index, tables.count, i, &job.faults[1]);
    const int64_t symbol = load_integer({job.symbols, job.dtype}, i), offset = symbol - tables.low;
    const bool has_place = offset >= 0 && offset < n;
    if (symbol != int32_t(symbol) || !(has_place || tables.escape)) {
      atomicMin(&job.faults[2], Word(i));
      continue;
    }
    const uint32_t word = job.intervals[has_place ? table * n + offset : tables.count * n];
    const RansInterval interval = rans_interval(word, tables.precision, tables.escape);
    encoder.put(interval.start, interval.frequency, tables.precision);
    if (interval.escaped) range64_put_escaped(encoder, offset, n);
  }
  return encoder.finish().length;
}

__global__ void __launch_bounds__(kThreads) range64_encode_kernel(RangeJob job) {
  const int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (k >= job.count) return;
  job.sums[k] = *job.wrong == ~Word(0) ? int64_t(encode_message(job, k)) : 0;
}

__global__ void __launch_bounds__(kScanThreads)
    range64_sums_kernel(int64_t* __restrict__ sums, int64_t count, int64_t* __restrict__ totals) {
  OTCUDA_SHARED(shared, int64_t[32]);
  const int64_t k = int64_t(blockIdx.x) * kScanThreads + threadIdx.x;
  const SumInOrder sum = sum_in_order(k < count ? sums[k] : 0, shared);
  if (k < count) sums[k] = sum.upto;
  if (threadIdx.x == 0) totals[blockIdx.x] = sum.all;
}

__global__ void __launch_bounds__(kScanThreads)
    range64_totals_kernel(int64_t* __restrict__ totals, int64_t blocks) {
  OTCUDA_SHARED(shared, int64_t[32]);
  int64_t carry = 0;
  for (int64_t first = 0; first < blocks; first += kScanThreads) {
    const int64_t k = first + threadIdx.x, own = k < blocks ? totals[k] : 0;
    const SumInOrder sum = sum_in_order(own, shared);
    if (k < blocks) totals[k] = carry + sum.upto - own;
    carry += sum.all;
  }
}

// Each message to its place, by a warp.
__global__ void __launch_bounds__(kCopyThreads) range64_compact_kernel(RangeJob job) {
  const int64_t k = warp_of_grid();
  if (k >= job.count) return;
  const int64_t before = k % kScanThreads == 0 ? 0 : job.sums[k - 1], upto = job.sums[k];
  const int64_t base = job.totals[k / kScanThreads];
  if (lane_of() == 0) job.byte_ends[k] = base + upto;
  if (*job.wrong != ~Word(0)) return;  // no slot is to be trusted
  const uint8_t* from = reinterpret_cast<const uint8_t*>(slot_of(job, k));
  uint8_t* const to = job.data + base + before;
  for (int64_t i = lane_of(); i < upto - before; i += 32) to[i] = from[i];
}

// ---- decoding

__device__ __forceinline__ bool store_integer(void* to, DType dtype, int64_t i, int32_t value) {
  switch (dtype) {  // the same for all threads
    case DType::u8:
      static_cast<uint8_t*>(to)[i] = uint8_t(value);
      return value >= 0 && value < 256;
    case DType::i16:
      static_cast<int16_t*>(to)[i] = int16_t(value);
      return value == int16_t(value);
    case DType::i32:
      static_cast<int32_t*>(to)[i] = value;
      return true;
    default:
      static_cast<int64_t*>(to)[i] = value;
      return true;
  }
}

template <Search search>
__device__ __forceinline__ void decode_message(const RangeJob& job, int64_t k) {
  const RansShape& tables = job.tables;
  const Finder<search> find(tables, job.image);
  const int P = tables.precision;
  const int64_t end = job.ends[k], from = begin_of(job.byte_ends, k);
  const uint32_t escape_slot = tables.escape ? (1u << P) - 1 : ~0u;
  RangeDecoder decoder(job.data + from, size_t(job.byte_ends[k] - from));
  for (int64_t i = begin_of(job.ends, k); i < end; ++i) {
    const uint32_t table = load_table(job.index, tables.count, i, &job.faults[1]);
    const uint32_t slot = decoder.slot(P);
    int32_t symbol;
    if (slot == escape_slot) {
      decoder.take(slot, 1, P);
      symbol = range64_get_escaped(decoder, tables.low, tables.symbols, [&](uint32_t s) {
        return job.intervals[table * tables.symbols + s] >> 16 != 0;
      });
    } else {
      const RansFoundSlot found = find(table, slot);
      decoder.take(slot - found.rank, found.frequency, P);
      symbol = int32_t(uint32_t(tables.low) + found.symbol);
    }
    if (!store_integer(job.symbols, job.dtype, i, symbol)) atomicMin(&job.faults[2], Word(i));
  }
  if (decoder.corrupt()) {
    note_fault(job, k, RangeFault::corrupt);
  } else if (!decoder.finished()) {
    note_fault(job, k, RangeFault::unfinished);
  }
}

template <Search search>
__global__ void __launch_bounds__(kThreads, 8) range64_decode_kernel(RangeJob job) {
  const int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (k >= job.count || *job.wrong != ~Word(0)) return;
  decode_message<search>(job, k);
}

// ---- launchers

int longest_code(const RansShape& tables, DType symbols) {
  const int64_t first = symbols == DType::u8 ? 0 : symbols == DType::i16 ? INT16_MIN : INT32_MIN;
  const int64_t last = symbols == DType::u8    ? UINT8_MAX
                       : symbols == DType::i16 ? INT16_MAX
                                               : INT32_MAX;
  return range64_most_bits(tables.precision, tables.escape, tables.low, tables.symbols, first,
                           last);
}

int64_t slot_words(const RansShape& tables, DType symbols, int64_t n, int64_t messages) {
  return n * longest_code(tables, symbols) / 32 + kSlotWords * messages;
}

struct Scratch {
  Word* wrong;
  uint32_t* slots = nullptr;
  int64_t *sums = nullptr, *totals = nullptr;

  explicit Scratch(Workspace* workspace) : wrong(workspace->take<Word>(1)) {}
  Scratch(Workspace* workspace, int64_t words, int64_t messages) : Scratch(workspace) {
    slots = workspace->take<uint32_t>(words);
    sums = workspace->take<int64_t>(messages);
    totals = workspace->take<int64_t>(ceil_div(messages, kScanThreads));
  }
};

RangeJob job_of(const RangeCall& call, const Scratch& scratch) {
  const int64_t count = call.ends.shape[0], n = call.symbols.shape[0];
  OTCUDA_CHECK(count < kMostMessages,
               "range64 on CUDA takes fewer than 2^31 messages; got " + std::to_string(count));
  OTCUDA_CHECK(count > 0 || n == 0, "range64: there are symbols, but no messages");
  RangeJob job = {};
  job.tables = call.tables;
  const uint32_t* image = call.image.read<uint32_t>();
  job.image = image + (call.tables.direct ? call.tables.direct_at() : 0);
  job.intervals = image + call.tables.intervals_at();
  if (call.index != nullptr) job.index = {call.index->data, call.index->dtype};
  job.symbols = call.symbols.data;
  job.dtype = call.symbols.dtype;
  job.bits = longest_code(call.tables, job.dtype);
  job.n = n;
  job.count = count;
  job.ends = call.ends.read<int64_t>();
  job.data = call.data.write<uint8_t>();
  job.capacity = call.data.size();
  job.byte_ends = call.byte_ends.write<int64_t>();
  job.faults = call.faults.write<Word>();
  job.wrong = scratch.wrong;
  job.slots = scratch.slots;
  job.sums = scratch.sums;
  job.totals = scratch.totals;
  return job;
}

void check_symbols(const TensorView& symbols) {
  const DType dtype = symbols.dtype;
  OTCUDA_CHECK(
      dtype == DType::u8 || dtype == DType::i16 || dtype == DType::i32 || dtype == DType::i64,
      std::string("range64 on CUDA: symbols are ") + dtype_name(dtype) +
          ", expected uint8, int16, int32 or int64");
}

void check_ends(const RangeJob& job, const int64_t* ends, int64_t total, bool whole,
                RangeFault fault, cudaStream_t stream) {
  OTCUDA_LAUNCH(range64_ends_kernel, dim3{unsigned(ceil_div(job.count, kThreads))}, dim3{kThreads},
                0, stream, job, ends, total, whole, fault);
  check_launch("range64");
}

// Faults and the mark of wrong ends; false: there is no message.
bool begin(const RangeJob& job, cudaStream_t stream) {
  check_cuda(cudaMemsetAsync(job.faults, 0xFF, 3 * sizeof(Word), stream), "range64");
  check_cuda(cudaMemsetAsync(job.wrong, 0xFF, sizeof(Word), stream), "range64");
  if (job.count > 0) check_ends(job, job.ends, job.n, true, RangeFault::ends, stream);
  return job.count > 0;
}

template <Search search>
void launch_decode(const RangeJob& job, cudaStream_t stream) {
  OTCUDA_LAUNCH((range64_decode_kernel<search>), dim3{unsigned(ceil_div(job.count, kThreads))},
                dim3{kThreads}, 0, stream, job);
  check_launch("range64");
}

}  // namespace

int64_t range64_bound(const RansShape& tables, DType symbols, int64_t n, int64_t messages) {
  return 4 * slot_words(tables, symbols, n, messages);
}

int64_t range64_encode_workspace(const RansShape& tables, DType symbols, int64_t n,
                                 int64_t messages) {
  Workspace count;
  Scratch(&count, slot_words(tables, symbols, n, messages), messages);
  return count.used();
}

int64_t range64_decode_workspace() {
  Workspace count;
  const Scratch scratch(&count);
  return count.used();
}

void range64_encode(const RangeCall& call, const TensorView& workspace, uintptr_t stream) {
  check_symbols(call.symbols);
  const DeviceGuard guard(call.data);
  Workspace pieces("range64", workspace);
  const int64_t n = call.symbols.shape[0], count = call.ends.shape[0];
  const Scratch scratch(&pieces, slot_words(call.tables, call.symbols.dtype, n, count), count);
  const RangeJob job = job_of(call, scratch);
  const int64_t bound = range64_bound(call.tables, job.dtype, n, count);
  OTCUDA_CHECK(job.capacity >= bound, "data has " + std::to_string(job.capacity) +
                                          " bytes, expected at least " + std::to_string(bound));
  if (!begin(job, stream_of(stream))) return;
  OTCUDA_LAUNCH(range64_encode_kernel, dim3{unsigned(ceil_div(count, kThreads))}, dim3{kThreads}, 0,
                stream_of(stream), job);
  check_launch("range64");
  const int64_t blocks = ceil_div(count, kScanThreads);
  OTCUDA_LAUNCH(range64_sums_kernel, dim3{unsigned(blocks)}, dim3{kScanThreads}, 0,
                stream_of(stream), job.sums, count, job.totals);
  check_launch("range64");
  OTCUDA_LAUNCH(range64_totals_kernel, dim3{1}, dim3{kScanThreads}, 0, stream_of(stream),
                job.totals, blocks);
  check_launch("range64");
  OTCUDA_LAUNCH(range64_compact_kernel, dim3{unsigned(ceil_div(count, kCopyThreads / 32))},
                dim3{kCopyThreads}, 0, stream_of(stream), job);
  check_launch("range64");
}

void range64_decode(const RangeCall& call, const TensorView& workspace, uintptr_t stream) {
  check_symbols(call.symbols);
  const DeviceGuard guard(call.data);
  Workspace pieces("range64", workspace);
  const Scratch scratch(&pieces);
  const RangeJob job = job_of(call, scratch);
  if (!begin(job, stream_of(stream))) return;
  check_ends(job, job.byte_ends, job.capacity, false, RangeFault::byte_ends, stream_of(stream));
  if (call.tables.direct) {
    launch_decode<Search::direct>(job, stream_of(stream));
  } else {
    launch_decode<Search::global>(job, stream_of(stream));
  }
}

}  // namespace otcuda::cuda
