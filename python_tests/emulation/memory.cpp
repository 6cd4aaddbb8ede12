// SPDX-License-Identifier: Apache-2.0
// Every access of a kernel is judged here: bounds, alignment, initialisation, races, copies in
// flight. Kernels are compiled with -fsanitize=thread but libtsan is not linked: the functions it
// would hold are defined at the end of this file, so unmodified sources report each access to us.
#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include "emulator.h"

// The first and the last byte of this library: static data and constants lie between them.
extern "C" const char __ehdr_start __attribute__((visibility("hidden")));
extern "C" const char _end __attribute__((visibility("hidden")));

namespace emu {
namespace {
struct Event {
  uint32_t thread = 0;  // 1 + number of the thread in the grid; 0: never
  uint32_t epoch = 0, clock = 0;
  Access kind = Access::read;
  const void* pc = nullptr;
};
struct Cell {
  Event write;
  Event read[3];           // the last; the last of another thread; the last of another warp
  bool is_flying = false;  // a bulk copy did not land yet
};
// Device memory known to the emulator: a buffer of the caller, or a shared array of a block.
struct Region {
  const char *begin, *end;
  size_t granule;  // bytes that one cell watches
  bool is_shared, is_constant;
  std::string name;
  const void* key;
  std::vector<Cell> cells;
  std::vector<bool> written;  // by byte; empty: all of it holds data from the start
  bool is_carved = false;     // only its pieces may be touched
  uint32_t window = 0;        // address of shared memory
};

constexpr uint32_t kWindow = 228 << 10;
std::vector<Region> regions;
uint64_t accesses;
uint32_t window_used;

uint32_t thread_number(const Fiber& f) {
  return block_number * uint32_t(fibers.size()) + uint32_t(f.linear) + 1;
}
uint32_t local_thread(const Event& e) { return (e.thread - 1) % uint32_t(fibers.size()); }

// Did e happen before the current moment of f?
bool ordered(const Event& e, const Fiber& f) {
  if (!e.thread || e.thread == thread_number(f)) return true;
  if ((e.thread - 1) / uint32_t(fibers.size()) != block_number) return false;  // other block
  const uint32_t local = local_thread(e);
  if (local < f.far.size() && f.far[local] >= e.clock) return true;
  if (e.kind == Access::bulk_issued) return false;  // whatever barrier its thread passed
  return e.epoch < epoch || (local / 32 == uint32_t(f.warp) && f.seen[local % 32] >= e.clock);
}

bool is_read(Access kind) { return kind == Access::read || kind == Access::tile_read; }

const char* verb(Access kind) {
  return is_read(kind) ? "read" : kind == Access::atomic ? "atomic" : "write";
}

void expect_ordered(const Region& r, size_t i, const Event& e, const Event& now, const Fiber& f) {
  if (ordered(e, f) || (e.kind == Access::atomic && now.kind == Access::atomic)) return;
  fail("race on %s[%zu]: %s by thread %u %s, then %s by thread %d %s", r.name.c_str(), i,
       verb(e.kind), local_thread(e), at(e.pc).c_str(), verb(now.kind), f.linear,
       at(now.pc).c_str());
}

void remember_read(Cell& c, const Event& now) {
  const uint32_t last_warp = c.read[0].thread ? local_thread(c.read[0]) / 32 : 0;
  if (c.read[0].thread && c.read[0].thread != now.thread) {
    c.read[1] = c.read[0];
    if (last_warp != local_thread(now) / 32) c.read[2] = c.read[0];
  }
  c.read[0] = now;
}

void check_cells(Region& r, const char* p, size_t n, Access kind, const void* pc, Fiber& f) {
  const Event now{thread_number(f), epoch, f.clock, kind, pc};
  const size_t last = size_t(p + n - 1 - r.begin) / r.granule;
  for (size_t i = size_t(p - r.begin) / r.granule; i <= last; ++i) {
    Cell& c = r.cells[i];
    if (is_read(kind) && (c.write.kind == Access::copy_issued || c.is_flying)) {
      fail("thread %d reads %s[%zu] %s while the cp.async %s may still be in flight", f.linear,
           r.name.c_str(), i, at(pc).c_str(), at(c.write.pc).c_str());
    }
    expect_ordered(r, i, c.write, now, f);
    if (kind == Access::tile_read && c.write.thread && c.write.kind != Access::bulk_issued) {
      fail("wgmma %s reads %s[%zu], which thread %u wrote %s: only bulk copies are emulated here",
           at(pc).c_str(), r.name.c_str(), i, local_thread(c.write), at(c.write.pc).c_str());
    }
    if (is_read(kind)) {
      remember_read(c, now);
      continue;
    }
    for (const Event& e : c.read) expect_ordered(r, i, e, now, f);
    c = Cell{now, {}, kind == Access::bulk_issued};
  }
}

void check_data(Region& r, const char* p, size_t n, Access kind, const void* pc, const Fiber& f) {
  const size_t first = size_t(p - r.begin);
  if (!is_read(kind) && r.is_constant) {
    fail("thread %d writes %s[%zu] %s, which is an input", f.linear, r.name.c_str(),
         first / r.granule, at(pc).c_str());
  }
  if (r.written.empty()) return;
  for (size_t i = first; i < first + n; ++i) {
    if ((is_read(kind) || kind == Access::atomic) && !r.written[i]) {
      fail("thread %d reads %s[%zu] %s before anyone wrote it", f.linear, r.name.c_str(),
           i / r.granule, at(pc).c_str());
    }
    if (!is_read(kind)) r.written[i] = true;
  }
}

Region* find_region(const char* p) {
  for (auto& r : regions) {
    if (p >= r.begin && p < r.end) return &r;
  }
  return nullptr;
}

[[noreturn]] void fail_outside(const char* p, size_t n, Access kind, const void* pc) {
  const Region* near = nullptr;
  for (auto& r : regions) {
    const bool close = p >= r.end && p < r.end + 65536 && !r.is_carved;
    if (close && (!near || r.end > near->end)) near = &r;
  }
  fail("out of bounds: thread %d %ss %zu bytes %s, %td bytes past %s", running()->linear,
       verb(kind), n, at(pc).c_str(), near ? p - near->end : 0,
       near ? near->name.c_str() : "nothing known");
}

bool is_private(const char* p) {
  const char* first = reinterpret_cast<const char*>(fibers.data());
  return is_thread_stack(p) || is_kernel_argument(p) || (p >= &__ehdr_start && p < &_end) ||
         (p >= first && p < first + fibers.size() * sizeof(Fiber));
}
}  // namespace

std::string at(const void* pc) {
  char b[32];
  snprintf(b, sizeof b, "@%#tx", static_cast<const char*>(pc) - &__ehdr_start - 1);
  return pc ? b : "@?";
}

void begin_launch_memory() {
  accesses = 0;
  for (auto& r : regions) {
    r.cells.assign((size_t(r.end - r.begin) + r.granule - 1) / r.granule, Cell{});
  }
}

void end_block_memory() {
  for (auto& r : regions) {
    if (r.is_shared) free(const_cast<char*>(r.begin));
  }
  regions.erase(
      std::remove_if(regions.begin(), regions.end(), [](const Region& r) { return r.is_shared; }),
      regions.end());
  window_used = 0;
}

void note_landing(const void* p, size_t bytes) {
  auto* begin = static_cast<const char*>(p);
  Region& r = *find_region(begin);
  const size_t last = size_t(begin + bytes - 1 - r.begin) / r.granule;
  for (size_t i = size_t(begin - r.begin) / r.granule; i <= last; ++i) r.cells[i].is_flying = false;
}

bool happened(int thread, uint32_t then, uint32_t clock) {
  const uint32_t number = block_number * uint32_t(fibers.size()) + uint32_t(thread) + 1;
  return ordered({number, then, clock, Access::write, nullptr}, *running());
}

const char* shared_at(uint32_t address) {
  for (auto& r : regions) {
    const bool after = r.is_shared && address >= r.window;
    if (after && address < r.window + uint32_t(r.end - r.begin)) {
      return r.begin + (address - r.window);
    }
  }
  fail("thread %d: no array lies at %#x of shared memory", running()->linear, address);
}

// An array is aligned as its type asks, and no better.
uint32_t take_window(size_t bytes, size_t align) {
  const auto unit = uint32_t(align);
  const uint32_t begin = ((window_used / unit + 1) | 1) * unit;
  window_used = begin + uint32_t(bytes);
  if (window_used > kWindow + (8 << 10)) fail("%u bytes of shared memory", window_used);
  return begin;
}

void* shared(const void* key, size_t bytes, size_t granule, const char* name, size_t align) {
  for (auto& r : regions) {
    if (r.key == key) return const_cast<char*>(r.begin);
  }
  auto* p = static_cast<char*>(aligned_alloc(1024, (bytes + 1023) / 1024 * 1024));
  std::memset(p, 0xff, bytes);  // NaN: old contents must not look like data
  Region r{p, p + bytes, granule, true, false, name, key, {}, std::vector<bool>(bytes)};
  r.cells.resize((bytes + granule - 1) / granule);
  r.window = take_window(bytes, align);
  regions.push_back(std::move(r));
  return p;
}

// From here on kernels may touch this part of a buffer, and of the rest only other pieces.
void workspace_piece(const void* p, size_t bytes, size_t item) {
  auto* begin = static_cast<const char*>(p);
  for (auto& r : regions) {
    if (bytes == 0 || begin < r.begin || begin >= r.end) continue;
    r.is_carved = true;
    const std::string name = r.name + " piece " + std::to_string(begin - r.begin);
    const size_t granule = std::min<size_t>(item, 4);  // bytes that one cell watches
    Region piece{begin, begin + bytes,           granule, false, false, name, p,
                 {},    std::vector<bool>(bytes)};
    regions.insert(regions.begin(), std::move(piece));  // found before the whole
    return;
  }
}

void access(const void* address, size_t n, Access kind, const void* pc) {
  auto* p = static_cast<const char*>(address);
  if (!self) {  // host code; reported at the next launch, for a hook must not throw
    const Region* r = regions.empty() ? nullptr : find_region(p);
    if (r && error.empty()) error = "host code touches device memory of " + r->name + " " + at(pc);
    return;
  }
  if (is_private(p)) {  // locals, constants, threadIdx, arguments
    Fiber& f = *running();
    if (!f.sums.empty()) check_registers(f, p, n, kind == Access::read, pc);
    return;
  }
  Region* r = find_region(p);
  if (!r || r->is_carved) fail_outside(p, n, kind, pc);
  if (p + n > r->end) {
    fail("out of bounds: thread %d %ss %zu bytes %s over the end of %s", running()->linear,
         verb(kind), n, at(pc).c_str(), r->name.c_str());
  }
  if (settings.most_accesses && ++accesses > settings.most_accesses) {
    fail("endless: %llu accesses, the last %s", (unsigned long long)accesses, at(pc).c_str());
  }
  Fiber& f = *running();
  if (settings.traffic && kind != Access::copy_lands) note_traffic(f, pc, r->is_shared, p, n);
  if (settings.preempt && random_number() % settings.preempt == 0 && f.state == Fiber::ready) {
    switch_threads();
  }
  check_data(*r, p, n, kind, pc, f);
  check_cells(*r, p, n, kind, pc, f);
}

namespace {
void aligned_access(const void* p, size_t n, Access kind, const void* pc) {
  if (self && reinterpret_cast<uintptr_t>(p) % n != 0) {
    fail("misaligned: thread %d %ss %zu bytes %s at an address that is no multiple of %zu",
         running()->linear, verb(kind), n, at(pc).c_str(), n);
  }
  access(p, n, kind, pc);
}
}  // namespace

// A copy counts as a write when it is issued and again when it completes; its data land last.
void cp_async(void* dst, const void* src, int bytes) {
  const void* pc = __builtin_return_address(0);
  aligned_access(src, size_t(bytes), Access::read, pc);
  aligned_access(dst, size_t(bytes), Access::copy_issued, pc);
  running()->copies.push_back({dst, src, bytes, running()->group, pc});
}
void cp_async_commit() { ++running()->group; }
void cp_async_wait(int newest_left) {
  auto& copies = running()->copies;
  auto lands = [&](const Copy& k) {
    if (k.group >= running()->group - newest_left) return false;
    access(k.dst, size_t(k.bytes), Access::copy_lands, k.pc);
    std::memcpy(k.dst, k.src, size_t(k.bytes));
    return true;
  };
  copies.erase(std::remove_if(copies.begin(), copies.end(), lands), copies.end());
}
}  // namespace emu

uint32_t shared_address(const void* shared) {
  const emu::Region* r = emu::find_region(static_cast<const char*>(shared));
  if (!r || !r->is_shared) emu::fail("an address that is not in shared memory");
  return r->window + uint32_t(static_cast<const char*>(shared) - r->begin);
}

cudaError_t cudaMemsetAsync(void* p, int byte, size_t bytes, cudaStream_t) {
  emu::Region* r = emu::find_region(static_cast<char*>(p));
  if (!r || static_cast<char*>(p) + bytes > r->end || r->is_constant) return cudaErrorInvalidValue;
  std::memset(p, byte, bytes);
  const size_t first = size_t(static_cast<char*>(p) - r->begin);
  for (size_t i = first; i < first + bytes && !r->written.empty(); ++i) r->written[i] = true;
  return cudaSuccess;
}

// ---- the interface of emulation.py
extern "C" {
enum EmuBuffer { emu_input, emu_output, emu_inout };
void emu_add_buffer(const void* p, size_t bytes, size_t granule, int kind, const char* name) {
  auto* begin = static_cast<const char*>(p);
  emu::Region r{begin, begin + bytes, granule, false, kind == emu_input, name, p, {}, {}};
  r.written.resize(kind == emu_output ? bytes : 0);
  emu::regions.push_back(std::move(r));
}
// Bytes of the buffer at p that nobody wrote.
size_t emu_unwritten(const void* p) {
  const emu::Region* r = emu::find_region(static_cast<const char*>(p));
  return r ? size_t(std::count(r->written.begin(), r->written.end(), false)) : 0;
}
void emu_clear() {
  emu::regions.clear();
  emu::error.clear();
}
void emu_configure(unsigned seed, unsigned preempt, int processors, int traffic,
                   uint64_t most_accesses, int mma_error) {
  emu::settings = {seed, preempt, processors, traffic != 0, most_accesses, mma_error};
}
const char* emu_host_error() { return emu::error.empty() ? nullptr : emu::error.c_str(); }

// ---- what libtsan would define
#define EMU_HOOK(name, n, kind) \
  void name(void* p) { emu::aligned_access(p, n, emu::Access::kind, __builtin_return_address(0)); }
#define EMU_LOOSE_HOOK(name, n, kind) \
  void name(void* p) { emu::access(p, n, emu::Access::kind, __builtin_return_address(0)); }
#define EMU_HOOKS(n)                                \
  EMU_HOOK(__tsan_read##n, n, read)                 \
  EMU_HOOK(__tsan_write##n, n, write)               \
  EMU_LOOSE_HOOK(__tsan_unaligned_read##n, n, read) \
  EMU_LOOSE_HOOK(__tsan_unaligned_write##n, n, write)
EMU_HOOKS(1)
EMU_HOOKS(2)
EMU_HOOKS(4)
EMU_HOOKS(8)
EMU_HOOKS(16)
void __tsan_read_range(void* p, size_t n) {
  emu::access(p, n, emu::Access::read, __builtin_return_address(0));
}
void __tsan_write_range(void* p, size_t n) {
  emu::access(p, n, emu::Access::write, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
}
