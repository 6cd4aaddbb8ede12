// SPDX-License-Identifier: Apache-2.0
// Barriers in shared memory that count arrivals and bytes, and the bulk copies that land on them. A
// copy lands when nothing else can run, or at random before: never because a thread needs it. Its
// data are ordered by the phase that counted them, and by nothing else.
#include <algorithm>
#include <stdexcept>

#include "emulator.h"

namespace emu {
namespace {
struct Barrier {
  unsigned arrivals, pending, phase = 0;
  int64_t bytes = 0;         // expected in this phase and not yet here
  bool is_fenced = false;    // copies may name it
  bool has_bytes = false;    // some landed in this phase
  bool is_unheeded = false;  // some landed in the last one, and nobody waited for it
  int thread;                // that made it, and when
  uint32_t epoch, clock;
  std::vector<uint32_t> joined, done;  // what happened before: this phase, the last complete one
};
struct Flight {
  void* dst;
  const void* src;
  unsigned bytes;
  Mbarrier* barrier;
  const void* pc;
  int thread;
  uint32_t clock;
};
std::map<const Mbarrier*, Barrier> barriers;
std::vector<Flight> flights;

void join(std::vector<uint32_t>& to, const std::vector<uint32_t>& from) {
  to.resize(std::max(to.size(), from.size()));
  for (size_t i = 0; i < from.size(); ++i) to[i] = std::max(to[i], from[i]);
}

// All that this thread did or saw so far happens before what follows `to`.
void release(Fiber& f, std::vector<uint32_t>& to) {
  to.resize(fibers.size());
  join(to, f.far);
  for (size_t i = 0; i < 32 && size_t(f.warp) * 32 + i < to.size(); ++i) {
    uint32_t& at = to[size_t(f.warp) * 32 + i];
    at = std::max(at, f.seen[i]);
  }
  to[size_t(f.linear)] = f.clock++;
}

Barrier& find(Mbarrier* barrier, int line) {
  const auto found = barriers.find(barrier);
  if (found == barriers.end()) {
    fail("thread %d uses an mbarrier at line %d that nobody initialised", running()->linear, line);
  }
  Barrier& b = found->second;
  if (!happened(b.thread, b.epoch, b.clock)) {
    fail("thread %d uses an mbarrier at line %d whose initialisation by thread %d may come later",
         running()->linear, line, b.thread);
  }
  return b;
}

// Begins the next phase if this one is complete, and wakes those who waited for it.
void settle(const Mbarrier* barrier, Barrier& b) {
  if (b.pending != 0 || b.bytes != 0) return;
  ++b.phase;
  b.is_unheeded = std::exchange(b.has_bytes, false);
  b.pending = b.arrivals;
  b.done = std::move(b.joined);
  b.joined.clear();
  for (auto& f : fibers) {
    if (f.state != Fiber::at_mbarrier || f.waits_for != barrier) continue;
    if (b.phase % 2 == f.parity) continue;
    join(f.far, b.done);
    b.is_unheeded = false;
    f.state = Fiber::ready;
  }
}

void arrive(Mbarrier* barrier, unsigned bytes, int line) {
  Barrier& b = find(barrier, line);
  if (b.pending == 0) {
    fail("thread %d arrives at line %d at an mbarrier that expects no more than %u arrivals",
         running()->linear, line, b.arrivals);
  }
  b.bytes += bytes;
  --b.pending;
  release(*running(), b.joined);
  settle(barrier, b);
}
}  // namespace

bool land_a_copy() {
  if (flights.empty()) return false;
  const size_t which = settings.seed ? random_number() % flights.size() : 0;
  const Flight k = flights[which];
  flights.erase(flights.begin() + ptrdiff_t(which));
  std::memcpy(k.dst, k.src, k.bytes);
  note_landing(k.dst, k.bytes);
  Barrier& b = barriers.at(k.barrier);
  b.bytes -= k.bytes;
  b.has_bytes = true;
  if (b.bytes < 0) {
    throw std::runtime_error("more bytes than expected land on an mbarrier; the last by thread " +
                             std::to_string(k.thread) + " " + at(k.pc));
  }
  b.joined.resize(fibers.size());
  b.joined[size_t(k.thread)] = std::max(b.joined[size_t(k.thread)], k.clock);
  settle(k.barrier, b);
  return true;
}

void begin_block_barriers() {
  flights.clear();
  barriers.clear();
}

void end_block_barriers() {
  for (auto& each : barriers) {
    if (each.second.is_unheeded) {
      throw std::runtime_error(
          "the block exits and nobody waited for the last bytes of an mbarrier");
    }
  }
  if (flights.empty()) return;
  throw std::runtime_error("the block exits while the bulk copy by thread " +
                           std::to_string(flights[0].thread) + " " + at(flights[0].pc) +
                           " may still be in flight");
}

void bulk_copy(void* dst, const void* src, unsigned bytes, Mbarrier* barrier, int line) {
  const void* pc = __builtin_return_address(0);
  Fiber& f = *running();
  const auto bits = reinterpret_cast<uintptr_t>(dst) | reinterpret_cast<uintptr_t>(src) | bytes;
  if (bits % 16 != 0 || bytes == 0) {
    fail(
        "misaligned: thread %d gives bulk_copy %s addresses or %u bytes that are no multiple of "
        "16",
        f.linear, at(pc).c_str(), bytes);
  }
  if (!find(barrier, line).is_fenced) {
    fail("bulk_copy at line %d names an mbarrier whose maker passed no fence_proxy_async", line);
  }
  for (const Flight& k : flights) {
    const auto *to = static_cast<char*>(dst), *other = static_cast<char*>(k.dst);
    if (to < other + k.bytes && other < to + bytes) {
      fail("thread %d copies %s over what the bulk copy %s may still bring", f.linear,
           at(pc).c_str(), at(k.pc).c_str());
    }
  }
  access(src, bytes, Access::read, pc);
  access(dst, bytes, Access::bulk_issued, pc);
  flights.push_back({dst, src, bytes, barrier, pc, f.linear, f.clock++});
}
}  // namespace emu

void mbarrier_init(Mbarrier* barrier, unsigned arrivals, int line) {
  emu::Fiber& f = *emu::running();
  if (emu::barriers.count(barrier)) {
    emu::fail("thread %d initialises an mbarrier twice, line %d", f.linear, line);
  }
  if (arrivals == 0) emu::fail("mbarrier_init without arrivals at line %d", line);
  shared_address(barrier);  // must lie there
  emu::Barrier b{};
  b.arrivals = b.pending = arrivals;
  b.thread = f.linear;
  b.epoch = emu::epoch;
  b.clock = f.clock++;
  emu::barriers[barrier] = b;
}

void fence_proxy_async() {
  for (auto& each : emu::barriers) {
    if (each.second.thread == emu::running()->linear) each.second.is_fenced = true;
  }
}

void mbarrier_arrive(Mbarrier* barrier, int line) { emu::arrive(barrier, 0, line); }
void mbarrier_arrive_expect(Mbarrier* barrier, unsigned bytes, int line) {
  emu::arrive(barrier, bytes, line);
}

void mbarrier_wait(Mbarrier* barrier, unsigned parity, int line) {
  emu::Barrier& b = emu::find(barrier, line);
  emu::Fiber& f = *emu::running();
  if (parity > 1) emu::fail("mbarrier_wait for parity %u at line %d", parity, line);
  if (b.phase % 2 != parity) {
    emu::join(f.far, b.done);
    b.is_unheeded = false;
    return;
  }
  f.state = emu::Fiber::at_mbarrier;
  f.waits_for = barrier;
  f.parity = parity;
  f.line = line;
  emu::switch_threads();
}
