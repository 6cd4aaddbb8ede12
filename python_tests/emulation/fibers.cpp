// SPDX-License-Identifier: Apache-2.0
// Threads, barriers, collectives and launches of the emulator. x86-64, one OS thread; blocks run
// one after another, so nothing that spins on another block can run here.
#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <random>
#include <stdexcept>

#include "emulator.h"

namespace emu {

Thread* self;
dim3 block_idx, block_dim, grid_dim;
Settings settings;
std::vector<Fiber> fibers;
uint32_t epoch, block_number;
std::string error;

namespace {
constexpr size_t kStack = 256 << 10;
constexpr size_t kMostThreads = 1024;
constexpr size_t kStaticShared = 48 << 10;  // more needs cudaFuncSetAttribute
constexpr size_t kMostShared = 227 << 10;   // of sm_90; smaller cards are judged by sass_report.py

std::vector<int> order;
std::mt19937 rng;
void* host_sp;
char* stacks;
void (*entry)(const void*);
const char *entry_args, *entry_args_end;
void* dynamic_key;
size_t dynamic_bytes;
std::map<const void*, size_t> allowed_shared;
cudaError_t last_error;

// Saves the callee-saved registers on the old stack, takes those of the new one.
extern "C" void emu_switch(void** save, void* load);
asm(R"(.text
.globl emu_switch
.hidden emu_switch
emu_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp, (%rdi); mov %rsi, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret)");

void fiber_main() {
  entry(entry_args);
  expect_no_products(*running());
  running()->state = Fiber::done;
  switch_threads();
}

void start(Fiber& f) {
  auto** top = reinterpret_cast<void**>(f.stack + kStack) - 1;  // rsp is 8 mod 16 after a call
  *top = nullptr;
  *--top = reinterpret_cast<void*>(&fiber_main);
  f.sp = top - 6;
  f.state = Fiber::ready;
  f.clock = 1;
  f.group = 0;
  f.copies.clear();
  f.far.clear();
  f.sums.clear();
  f.product_group = 0;
  f.visits.clear();
  std::fill(f.seen, f.seen + 32, 0u);
}

void resume(Fiber& f) {
  self = &f;
  emu_switch(&host_sp, f.sp);
  self = nullptr;
  if (!error.empty()) throw std::runtime_error(error);
}

const char* name_of(Collective op) {
  static const char* const names[] = {"__syncwarp", "shuffle", "vote",  "match",     "reduce",
                                      "ldmatrix",   "mma",     "wgmma", "wgmma_wait"};
  return names[int(op)];
}

std::string describe(const Fiber& f) {
  char b[160];
  if (f.state == Fiber::at_block_barrier) {
    snprintf(b, sizeof b, "thread %d at __syncthreads, line %d", f.linear, f.line);
  } else if (f.state == Fiber::at_collective) {
    snprintf(b, sizeof b, "thread %d at %s mask %08x, line %d", f.linear, name_of(f.op), f.mask,
             f.line);
  } else if (f.state == Fiber::at_mbarrier) {
    snprintf(b, sizeof b, "thread %d at mbarrier_wait for parity %u, line %d", f.linear, f.parity,
             f.line);
  } else {
    snprintf(b, sizeof b, "thread %d has %s", f.linear,
             f.state == Fiber::done ? "exited" : "not arrived");
  }
  return b;
}

[[noreturn]] void report_deadlock() {
  std::map<std::string, std::string> kinds;  // one thread for each way of waiting
  for (auto& f : fibers) {
    const std::string d = describe(f);
    kinds.emplace(d.substr(d.find(' ', 7)), d);
  }
  std::string s = "deadlock";
  for (auto& k : kinds) s += "; " + k.second;
  throw std::runtime_error(s);
}

void run_block() {
  ++block_number;
  epoch = 1;
  begin_block_barriers();
  begin_block_products();
  for (auto& f : fibers) start(f);
  for (;;) {
    size_t live = 0, ran = 0;
    if (settings.seed) std::shuffle(order.begin(), order.end(), rng);
    for (int i : order) {
      Fiber& f = fibers[i];
      if (f.state == Fiber::ready) {
        resume(f);
        ++ran;
      }
      live += f.state != Fiber::done;
    }
    if (!live) break;
    if ((!ran || (settings.seed && rng() % 4 == 0)) && !land_a_copy() && !ran) report_deadlock();
  }
  end_block_products();
  end_block_barriers();
  for (auto& f : fibers) {
    if (!f.copies.empty()) {
      throw std::runtime_error("thread " + std::to_string(f.linear) + " exits while its cp.async " +
                               at(f.copies[0].pc) + " may still be in flight");
    }
  }
  end_block_traffic();
}

void shape_block(dim3 block) {
  const size_t n = size_t(block.x) * block.y * block.z;
  if (!stacks) {
    stacks = static_cast<char*>(mmap(nullptr, kMostThreads * kStack, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  }
  if (n != fibers.size()) fibers.assign(n, {});
  order.resize(n);
  for (size_t i = 0; i < n; ++i) {
    Fiber& f = fibers[i];
    order[i] = int(i);
    f.tid = {unsigned(i % block.x), unsigned(i / block.x % block.y),
             unsigned(i / block.x / block.y)};
    f.linear = int(i);
    f.warp = int(i / 32);
    f.lane = int(i % 32);
    f.stack = stacks + i * kStack;
  }
}

bool fits_device(const void* kernel, dim3 grid, dim3 block, size_t smem) {
  const size_t threads = size_t(block.x) * block.y * block.z;
  const size_t allowed = allowed_shared.count(kernel) ? allowed_shared[kernel] : kStaticShared;
  return threads >= 1 && threads <= kMostThreads && grid.x >= 1 && grid.x < 1u << 31 &&
         grid.y >= 1 && grid.y < 65536 && grid.z >= 1 && grid.z < 65536 && smem <= allowed;
}
}  // namespace

void switch_threads() { emu_switch(&running()->sp, host_sp); }
uint32_t random_number() { return rng(); }
bool is_thread_stack(const char* p) { return p >= stacks && p < stacks + kMostThreads * kStack; }
bool is_kernel_argument(const char* p) { return p >= entry_args && p < entry_args_end; }

void fail(const char* format, ...) {
  char b[1024];
  va_list list;
  va_start(list, format);
  vsnprintf(b, sizeof b, format, list);
  va_end(list);
  if (error.empty()) error = b;
  if (!self) throw std::runtime_error(error);
  for (;;) switch_threads();  // the scheduler throws and never comes back
}

void collective(Collective op, unsigned mask, void* mine, Resolve resolve, int line) {
  Fiber& f = *running();
  if (!(mask >> f.lane & 1)) {
    fail("lane %d calls %s at line %d with mask %08x, which leaves it out", f.lane, name_of(op),
         line, mask);
  }
  f.op = op;
  f.mask = mask;
  f.mine = mine;
  f.resolve = resolve;
  f.line = line;
  f.state = Fiber::at_collective;
  ++f.clock;
  Fiber* warp = &fibers[size_t(f.warp) * 32];
  const int lanes = std::min<int>(32, int(fibers.size()) - f.warp * 32);
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    if (i >= lanes || warp[i].state == Fiber::done) {
      fail("%s at line %d names lane %d, which has exited", name_of(op), line, i);
    }
    if (warp[i].state != Fiber::at_collective) {  // someone is still on the way
      switch_threads();
      return;
    }
    if (warp[i].op != op || warp[i].mask != mask) {
      fail("warp divergence: %s; %s", describe(warp[i]).c_str(), describe(f).c_str());
    }
  }
  void* all[32] = {};
  uint32_t joined[32] = {};
  std::vector<uint32_t> far;
  for (int i = 0; i < lanes; ++i) {
    if (!(mask >> i & 1)) continue;
    all[i] = warp[i].mine;
    warp[i].seen[i] = warp[i].clock - 1;  // all accesses before this call
    for (int k = 0; k < 32; ++k) joined[k] = std::max(joined[k], warp[i].seen[k]);
    if (op != Collective::syncwarp || warp[i].far.empty()) continue;
    far.resize(fibers.size());
    for (size_t k = 0; k < warp[i].far.size(); ++k) far[k] = std::max(far[k], warp[i].far[k]);
  }
  for (int i = 0; i < lanes; ++i) {
    if (!(mask >> i & 1)) continue;
    warp[i].resolve(warp[i].mine, all, mask, i);
    // Votes and shuffles bring lanes together, but only this one orders what they did in memory.
    if (op == Collective::syncwarp) {
      std::copy(joined, joined + 32, warp[i].seen);
      warp[i].far = far;
    }
    warp[i].state = Fiber::ready;
  }
}

void block_barrier(int line) {
  Fiber& f = *running();
  f.state = Fiber::at_block_barrier;
  f.line = line;
  bool all_here = true;
  for (auto& g : fibers) {
    const bool elsewhere = g.state == Fiber::at_block_barrier && g.line != line;
    if (elsewhere || g.state == Fiber::done) {
      fail("divergent barrier: %s; %s", describe(g).c_str(), describe(f).c_str());
    }
    all_here = all_here && g.state == Fiber::at_block_barrier;
  }
  if (all_here) {
    ++epoch;
    for (auto& g : fibers) g.state = Fiber::ready;
    if (!settings.seed) return;
  }
  switch_threads();
}

void* dynamic_shared(size_t granule, size_t align) {
  return shared(&dynamic_key, dynamic_bytes, granule, "dynamic_shared", align);
}

void launch_erased(const void* kernel, const char* name, dim3 grid, dim3 block, size_t smem,
                   void (*body)(const void*), const void* args, size_t args_size) {
  if (!error.empty()) throw std::runtime_error(error);  // host code already went wrong
  if (!fits_device(kernel, grid, block, smem)) {
    last_error = cudaErrorInvalidConfiguration;  // as the driver: the kernel does not run
    return;
  }
  rng.seed(settings.seed);
  shape_block(block);
  entry = body;
  entry_args = static_cast<const char*>(args);
  entry_args_end = entry_args + args_size;
  grid_dim = grid;
  block_dim = block;
  dynamic_bytes = smem;
  block_number = 0;
  begin_launch_memory();
  try {
    for (block_idx.z = 0; block_idx.z < grid.z; ++block_idx.z) {
      for (block_idx.y = 0; block_idx.y < grid.y; ++block_idx.y) {
        for (block_idx.x = 0; block_idx.x < grid.x; ++block_idx.x) {
          run_block();
          end_block_memory();
        }
      }
    }
  } catch (const std::exception& e) {
    self = nullptr;
    end_block_memory();
    throw std::runtime_error(std::string(name) + ": " + e.what());
  }
}

cudaError_t allow_dynamic_shared(const void* kernel, int bytes) {
  if (bytes < 0 || size_t(bytes) > kMostShared) return last_error = cudaErrorInvalidValue;
  allowed_shared[kernel] = size_t(bytes);
  return cudaSuccess;
}
}  // namespace emu

cudaError_t cudaGetLastError() { return std::exchange(emu::last_error, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaSuccess                     ? "no error"
         : e == cudaErrorInvalidConfiguration ? "invalid configuration argument"
                                              : "invalid argument";
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor   ? 9
           : attribute == cudaDevAttrComputeCapabilityMinor ? 0
                                                            : emu::settings.processors;
  return cudaSuccess;
}
