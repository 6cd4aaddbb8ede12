// SPDX-License-Identifier: Apache-2.0
#include "cpu/rans32.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "common/backend_info.h"
#include "common/check.h"
#include "common/rans32.h"
#include "common/rans32_lookup.h"
#include "common/simd.h"
#include "common/threads.h"
#include "cpu/rans32_kernels.h"
#include "cpu/rans32_tree.h"
#include "cpu/symbol_runs.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kGroups = kRun / kRansLanes;
static_assert(kRun <= kRansRun, "an encoder takes a whole run");
constexpr int64_t kDirectSlots = 1 << 14;  // of 4 bytes; more leave the first cache
constexpr int64_t kPlacedSlots = 1 << 18;
constexpr int64_t kSlack = 8;        // words that a vector store may touch in front of the last one
constexpr int kExactPrecision = 10;  // below, the quotients of a float division are off by two

RansKernels kernels() {
#if OTCUDA_X86_LEVELS
  if (simd_level() == SimdLevel::avx512) return rans32_avx512();
  if (simd_level() == SimdLevel::avx2) return rans32_avx2();
#endif
  return rans32_portable();
}

BackendPath path() {
  if (simd_level() == SimdLevel::avx512) return BackendPath::rans32_avx512;
  return simd_level() == SimdLevel::avx2 ? BackendPath::rans32_avx2 : BackendPath::rans32_portable;
}

// Little-endian in the message.
void swap_words(uint16_t* words, size_t count) {
  if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) return;
  for (size_t k = 0; k < count; ++k)
    words[k] = static_cast<uint16_t>(words[k] >> 8 | words[k] << 8);
}

int side_width(const Tables& tables) { return tables.symbols() > 256 ? 2 : 1; }

void put_side(int64_t offset, int width, Vector<uint8_t>& bytes) {
  const RansSide side = rans_side(offset, width);
  for (int k = 0; k < side.length; ++k) bytes.push_back(static_cast<uint8_t>(side.bytes >> 8 * k));
}

struct Bytes {
  const uint8_t* next;
  const uint8_t* end;
};

// --- encoding
// -------------------------------------------------------------------------------------

struct BlockEncoder {
  BlockEncoder(const Tables& t, int64_t n)
      : tables(t), room(kRansStateBytes / 2 + n + kSlack), words(room.end()) {
    std::fill(state, state + kRansLanes, kRansLow);
  }

  // A run, from the last symbol to the first; n a multiple of 32 but for the last run of a block.
  void put(const RansKernels& vectors, const Run& run, int64_t n) {
    const int64_t groups = n / kRansLanes;
    escaped[groups] = 0;
    for (int64_t i = n; i-- > groups * kRansLanes;) put_one(run, i, i - groups * kRansLanes);
    words = vectors.encode({tables.intervals(), tables.precision(), tables.escape(), alphabet(),
                            outside(), tables.low(), run.symbol, run.table, groups, state, words,
                            escaped});
    if (!tables.escape()) return;
    for (int64_t g = groups; g >= 0; --g) note_escapes(run, g);
  }

  Vector<uint8_t> finish(RansBlock* block) {
    for (int lane = kRansLanes; lane-- > 0;) {
      *--words = static_cast<uint16_t>(state[lane] >> 16);
      *--words = static_cast<uint16_t>(state[lane]);
    }
    const size_t count = static_cast<size_t>(room.end() - words);
    swap_words(words, count);
    Vector<uint8_t> bytes;
    bytes.reserve(2 * count + 2 * escapes.size() + 8);
    const auto* first = reinterpret_cast<const uint8_t*>(words);
    bytes.insert(bytes.end(), first, first + 2 * count);
    const size_t before = bytes.size();
    const int width = side_width(tables);
    for (size_t k = escapes.size(); k-- > 0;) put_side(escapes[k], width, bytes);
    block->words = static_cast<uint32_t>(room.end() - words - kRansStateBytes / 2);
    block->side = static_cast<uint32_t>(bytes.size() - before);
    while (bytes.size() % 4 != 0) bytes.push_back(0);
    return bytes;
  }

 private:
  uint32_t alphabet() const { return static_cast<uint32_t>(tables.symbols()); }
  uint32_t outside() const { return static_cast<uint32_t>(tables.count()) * alphabet(); }

  void put_one(const Run& run, int64_t i, int64_t lane) {
    const int P = tables.precision();
    const uint32_t offset =
        static_cast<uint32_t>(run.symbol[i]) - static_cast<uint32_t>(tables.low());
    const uint32_t at = offset < alphabet() ? run.table[i] * alphabet() + offset : outside();
    uint32_t start = tables.intervals()[at] & 0xffff, f = tables.intervals()[at] >> 16;
    if (f == 0 && tables.escape()) {
      escaped[i / kRansLanes] |= 1u << lane;
      start = tables.escape_slot();
      f = 1;
    } else if (f == 0) {
      f = 65536;
    }
    uint32_t& x = state[lane];
    if (rans_full(x, f, P)) {
      *--words = static_cast<uint16_t>(x);
      x >>= 16;
    }
    x = rans_push(x, start, f, P);
  }

  void note_escapes(const Run& run, int64_t group) {
    for (uint32_t set = escaped[group]; set != 0;) {
      const int lane = 31 - __builtin_clz(set);
      set ^= 1u << lane;
      escapes.push_back(int64_t{run.symbol[group * kRansLanes + lane]} - tables.low());
    }
  }

  const Tables& tables;
  Buffer<uint16_t> room;
  uint16_t* words;
  uint32_t state[kRansLanes];
  uint32_t escaped[kGroups + 1];
  Vector<int64_t> escapes;  // offsets, last one first
};

Vector<uint8_t> encode_block(const Tables& tables, const TensorView& symbols,
                             const TensorView* index, int64_t begin, int64_t n, RansBlock* block) {
  const RansKernels vectors = tables.precision() < kExactPrecision ? rans32_portable() : kernels();
  BlockEncoder encoder(tables, n);
  Run run;
  block->check = 0;
  for (int64_t first = (n - 1) / kRun * kRun; first >= 0; first -= kRun) {
    heartbeat();
    const int64_t length = std::min(kRun, n - first);
    run.load_symbols(tables, symbols, begin + first, length, first, &block->check);
    if (index != nullptr) run.load_index(tables, *index, begin + first, length);
    encoder.put(vectors, run, length);
  }
  return encoder.finish(block);
}

// --- decoding
// -------------------------------------------------------------------------------------

[[noreturn]] void damaged(int64_t block, const char* what) {
  throw CorruptDataError("block " + std::to_string(block) + " of the message " + what);
}

// Reads one block, a run at a time; the vector kernels may take part of a run.
class BlockDecoder {
 public:
  BlockDecoder() = default;
  BlockDecoder(const Tables& tables, const uint8_t* data, const RansBlock& block, int64_t number)
      : tables_(&tables), block_(block), number_(number), next_(data + kRansStateBytes) {
    for (int lane = 0; lane < kRansLanes; ++lane) {
      for (int k = 0; k < 4; ++k) state_[lane] |= uint32_t{data[4 * lane + k]} << 8 * k;
      if (state_[lane] < kRansLow) damaged(number_, "begins with a state that no encoder leaves");
    }
    end_ = next_ + 2 * size_t{block.words};
    side_ = {end_, end_ + block.side};
  }

  RansDecodeRun begin_run(Run& run, int64_t n) {
    return {run.table, n / kRansLanes, state_, next_, end_, run.symbol, escaped_};
  }

  // The rest of a run after `groups` of it, and its escapes.
  void finish_run(Run& run, int64_t n, int64_t groups) {
    for (int64_t g = groups; g * kRansLanes < n; ++g) {
      get_group(run, g, std::min<int64_t>(kRansLanes, n - g * kRansLanes));
    }
    for (int64_t g = 0; tables_->escape() && g * kRansLanes < n; ++g) {
      if (escaped_[g] != 0) patch(run, g);
    }
  }

  void resume(const uint8_t* next) { next_ = next; }

  // check: of the symbols that were read; null for nobody who asks.
  void finish(const uint32_t* check) const {
    bool good = next_ == end_ && side_.next == side_.end;
    for (const uint32_t x : state_) good &= x == kRansLow;
    if (!good) damaged(number_, "is damaged, or tables or index are not those it was written with");
    if (check != nullptr && *check != block_.check) {
      damaged(number_, "gives symbols of another check: it is damaged, or tables or index differ");
    }
  }

 private:
  void get_group(Run& run, int64_t group, int64_t lanes) {
    const int P = tables_->precision();
    const uint32_t mask = (1u << P) - 1;
    escaped_[group] = 0;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      uint32_t& x = state_[lane];
      const int64_t i = group * kRansLanes + lane;
      const uint32_t slot = x & mask;
      uint32_t symbol = 0, f = 1, rank = 0;
      if (tables_->escape() && slot == mask) {
        escaped_[group] |= 1u << lane;
      } else {
        const auto found = tables_->find(run.table[i], slot);
        symbol = found.symbol;
        f = found.frequency;
        rank = slot - found.start;
      }
      run.symbol[i] = static_cast<int32_t>(static_cast<uint32_t>(tables_->low()) + symbol);
      x = rans_pop(x, rank, f, P);
    }
    for (int64_t lane = 0; lane < lanes; ++lane) {
      if (state_[lane] >= kRansLow) continue;
      if (next_ == end_) damaged(number_, "ends early");
      state_[lane] = state_[lane] << 16 | rans_word(next_);
      next_ += 2;
    }
  }

  void patch(Run& run, int64_t group) {
    for (uint32_t set = escaped_[group]; set != 0; set &= set - 1) {
      const int64_t i = group * kRansLanes + __builtin_ctz(set);
      int64_t offset = 0;
      const int bytes = rans_side_offset(side_.next, side_.end, side_width(*tables_), &offset);
      side_.next += bytes;
      bool good = bytes != 0;
      if (good && offset >= 0 && offset < tables_->symbols()) {  // escaped without need?
        good = tables_->interval(run.table[i], static_cast<uint32_t>(offset)).frequency == 0;
      }
      const int64_t symbol = tables_->low() + offset;
      if (!good || symbol < INT32_MIN || symbol > INT32_MAX) {
        damaged(number_, "holds an escaped symbol that no encoder writes");
      }
      run.symbol[i] = static_cast<int32_t>(symbol);
    }
  }

  const Tables* tables_ = nullptr;
  RansBlock block_ = {};
  int64_t number_ = 0;
  const uint8_t* next_ = nullptr;
  const uint8_t* end_ = nullptr;
  Bytes side_ = {nullptr, nullptr};
  uint32_t state_[kRansLanes] = {};
  uint32_t escaped_[kGroups + 1] = {};
};

struct Task {
  const Tables& tables;
  const uint8_t* data;
  const TensorView* index;
  int64_t block;
  const RansBlock* blocks;
  const int64_t* offsets;  // of the blocks in data
  const TensorView& symbols;
  RansLookup lookup;
  const RansTree* tree;  // null: by the look-up
  bool check;
};

constexpr int kSideBySide = kRansTreeRuns;

// As many groups of each run, as long as all have some; the runs go on behind them.
void decode_together(const Task& task, const RansKernels& vectors, RansDecodeRun* runs, int count) {
  int64_t groups = 0;
  if (task.tree == nullptr) {
    groups = count == 2 ? vectors.decode_two(task.lookup, runs) : vectors.decode(task.lookup, runs);
  } else {
#if OTCUDA_X86_LEVELS
    groups = rans32_decode_tree(*task.tree, runs, count);
#endif
  }
  for (int j = 0; j < count; ++j) {
    runs[j].table += groups * kRansLanes;
    runs[j].symbol += groups * kRansLanes;
    runs[j].escaped += groups;
    runs[j].groups -= groups;
  }
}

// The groups for which fewer words than a vector loop wants are left: from a copy of these, with
// room behind them. False if more were taken than there are.
bool decode_tail(const Task& task, const RansKernels& vectors, RansDecodeRun* part) {
  constexpr int64_t kWanted = 2 * kRansLanes;  // bytes
  const int64_t left = part->end - part->words;
  uint8_t copy[2 * kWanted] = {};
  std::copy(part->words, part->end, copy);
  RansDecodeRun tail = *part;
  tail.words = copy;
  tail.end = copy + sizeof copy;
  decode_together(task, vectors, &tail, 1);
  const int64_t used = tail.words - copy;
  tail.words = part->words + std::min(used, left);
  tail.end = part->end;
  *part = tail;
  return used <= left;
}

// Writes runs at one place of blocks side by side, and adds what they give to the checks.
class RunWriter {
 public:
  RunWriter(const Task& task, int64_t at) : task_(task), at_(static_cast<uint32_t>(at)) {}

  void write(const Run& run, int64_t begin, int64_t n, uint32_t* check) {
    if (!task_.check) return run.store(begin, n, task_.symbols);
    if (n != weighed_) run.kernels.weights(at_, n, &weights_);  // only a last block has fewer
    weighed_ = n;
    run.store(begin, n, task_.symbols, weights_, check);
  }

 private:
  const Task& task_;
  uint32_t at_;
  int64_t weighed_ = -1;
  CheckWeights weights_;
};

// Blocks first .. first + count - 1 side by side; only the last one may be shorter.
void decode_blocks(const Task& task, int64_t first, int count) {
  const RansKernels vectors = kernels();
  BlockDecoder decoders[kSideBySide];
  int64_t begin[kSideBySide], length[kSideBySide];
  for (int j = 0; j < count; ++j) {
    begin[j] = (first + j) * task.block;
    length[j] = std::min(task.block, task.symbols.size() - begin[j]);
    decoders[j] = BlockDecoder(task.tables, task.data + task.offsets[first + j],
                               task.blocks[first + j], first + j);
  }
  Run runs[kSideBySide];
  uint32_t checks[kSideBySide] = {};
  for (int64_t at = 0; at < length[0]; at += kRun) {
    heartbeat();
    RunWriter writer(task, at);
    RansDecodeRun parts[kSideBySide];
    int64_t n[kSideBySide];
    int whole = 0;
    for (int j = 0; j < count; ++j) {
      n[j] = std::max<int64_t>(0, std::min(kRun, length[j] - at));
      if (task.index != nullptr) {
        runs[j].load_index(task.tables, *task.index, begin[j] + at, n[j]);
      }
      parts[j] = decoders[j].begin_run(runs[j], n[j]);
      whole += parts[j].groups > 0;
    }
    if (whole > 1) decode_together(task, vectors, parts, whole);
    for (int j = 0; j < count; ++j) {
      if (parts[j].groups > 0) decode_together(task, vectors, parts + j, 1);
      const bool intact = parts[j].groups == 0 || decode_tail(task, vectors, parts + j);
      if (!intact) damaged(first + j, "ends early");
      decoders[j].resume(parts[j].words);
      decoders[j].finish_run(runs[j], n[j], n[j] / kRansLanes - parts[j].groups);
      writer.write(runs[j], begin[j] + at, n[j], checks + j);
    }
  }
  for (int j = 0; j < count; ++j) decoders[j].finish(task.check ? checks + j : nullptr);
}

// Any table size reads the same bytes; which is fastest depends on the caches.
RansLookup lookup_of(const Tables& tables, int64_t n) {
  const int64_t slots = tables.count() << tables.precision();
  const bool few = slots <= kDirectSlots, some = slots <= std::min(kPlacedSlots, 4 * n);
  const uint32_t* direct = few && some ? tables.direct() : nullptr;
  const uint16_t* places = !few && some ? tables.places() : nullptr;
  return {direct,
          places,
          tables.entries(),
          tables.kept(),
          tables.kept_begin(),
          tables.buckets(),
          tables.bucket_bits(),
          tables.precision(),
          tables.escape(),
          tables.low()};
}

// Reads an array in order, so that it lies near: from afar it then comes in half the time that its
// lines take one by one. Loads, not prefetches: those start no stream. `loads` is how many its user
// will make.
template <class T>
void fetch(const T* array, size_t count, int64_t loads) {
  constexpr size_t kLine = 64;
  const size_t bytes = count * sizeof(T);
  if (array == nullptr || bytes / kLine * 8 > static_cast<size_t>(loads)) return;
  const char* const begin = reinterpret_cast<const char*>(array);
  int met = 0;
  for (size_t at = 0; at < bytes; at += kLine) met += begin[at];
  asm volatile("" : : "r"(met));  // else nobody would want the loads
}

void fetch(const RansLookup& lookup, const Tables& tables, int64_t n) {
  const size_t slots = static_cast<size_t>(tables.count()) << tables.precision();
  fetch(lookup.direct, slots, n);
  fetch(lookup.places, slots, n);
  if (lookup.direct != nullptr) return;
  const bool placed = lookup.places != nullptr;
  fetch(placed ? lookup.entries : lookup.kept, tables.kept_size(), n);
  if (placed) return;
  fetch(lookup.buckets, static_cast<size_t>(tables.count()) << tables.bucket_bits(), n);
}

}  // namespace

Vector<Vector<uint8_t>> rans32_encode(const Tables& tables, const TensorView& symbols,
                                      const TensorView* index, int64_t block, RansBlock* blocks,
                                      Poll& poll) {
  const int64_t n = symbols.size(), count = (n + block - 1) / block;
  count_backend_path(path(), n);
  Vector<Vector<uint8_t>> parts(static_cast<size_t>(count));
  parallel_for(
      count, 1,
      [&](int64_t from, int64_t to) {
        for (int64_t k = from; k < to; ++k) {
          parts[k] = encode_block(tables, symbols, index, k * block, std::min(block, n - k * block),
                                  blocks + k);
        }
      },
      &poll, threads_for(4.0 * double(n)));
  return parts;
}

void rans32_decode(const Tables& tables, const uint8_t* data, int64_t size, const TensorView* index,
                   int64_t block, const RansBlock* blocks, const TensorView& symbols, Poll& poll,
                   bool check) {
  const int64_t n = symbols.size(), count = (n + block - 1) / block;
  count_backend_path(path(), n);
  Vector<int64_t> offsets;
  int64_t at = 0;
  for (int64_t k = 0; k < count; ++k) {
    const int64_t used = kRansStateBytes + 2 * int64_t{blocks[k].words} + blocks[k].side;
    offsets.push_back(at);
    if (used > size - at) damaged(k, "reaches beyond the end");
    for (at += used; at % 4 != 0; ++at) {
      if (at >= size || data[at] != 0) damaged(k, "is not padded with zeros");
    }
  }
  if (at != size) throw CorruptDataError("bytes are left after the last block of the message");
  const int threads = threads_for(4.0 * double(n));
  const int64_t share = std::min<int64_t>(std::max<int64_t>(2, count / threads), kSideBySide);
  RansTree tree;  // of few runs its long chain of steps is not hidden
  const bool small = share > 2 && rans32_tree(tables, &tree);
  if (small) count_backend_path(BackendPath::rans32_avx512_tree, n);
  const int64_t width = small ? share : 2;
  const Task task = {tables,
                     data,
                     index,
                     block,
                     blocks,
                     offsets.data(),
                     symbols,
                     small ? RansLookup() : lookup_of(tables, n),
                     small ? &tree : nullptr,
                     check};
  if (!small) fetch(task.lookup, tables, n);
  parallel_for((count + width - 1) / width, 1,
               [&](int64_t from, int64_t to) {
                 for (int64_t k = from * width; k < std::min(count, to * width); k += width) {
                   decode_blocks(task, k, static_cast<int>(std::min(width, count - k)));
                 }
               },
               &poll, threads);
}

}  // namespace otcuda::cpu
