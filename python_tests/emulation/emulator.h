// SPDX-License-Identifier: Apache-2.0
// What the parts of the emulator share: fibers.cpp runs threads, memory.cpp judges every access,
// traffic.cpp counts wavefronts and sectors. Compiled without -fsanitize=thread.
#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cuda_emu.h"

namespace emu {

using Site = std::pair<const void*, bool>;  // instruction, and whether it touched shared memory

// A cp.async on its way: it may write at any moment from issue to wait.
struct Copy {
  void* dst;
  const void* src;
  int bytes, group;
  const void* pc;
};

// Registers that products of a warpgroup add to.
struct Sums {
  float* d;
  float out[32] = {};       // what d will hold
  bool is_running = false;  // from issue to wait
  bool is_fenced = false;   // not changed since the last fence
  int group = 0;
  const void* pc = nullptr;
  std::vector<uint64_t> tiles;  // descriptors of what is being read; of one lane of a warp
  std::vector<const uint32_t*> operands;
};

struct Fiber : Thread {
  enum State { ready, at_block_barrier, at_collective, at_mbarrier, done };
  void* sp;
  char* stack;
  State state;
  Collective op;
  unsigned mask;
  void* mine;
  Resolve resolve;
  int line;
  uint32_t clock;     // accesses before the k-th collective carry clock k
  uint32_t seen[32];  // the last clock of each lane of the warp that happened before now
  std::vector<Copy> copies;
  int group;
  std::vector<uint32_t> far;  // as seen, of the whole block, where mbarriers told; or empty
  const void* waits_for;      // an mbarrier, and the parity of the phase
  unsigned parity;
  std::vector<Sums> sums;
  int product_group;
  std::map<Site, uint32_t> visits;  // executions of each instruction, for traffic
};

struct Settings {
  unsigned seed = 1;           // 0: threads run in order, else in a random one
  unsigned preempt = 0;        // n: also switch threads at one access in n
  int processors = 2;          // what the device says it has
  bool traffic = false;        // count wavefronts and sectors
  uint64_t most_accesses = 0;  // 0: no limit; else a kernel beyond it counts as endless
  int mma_error = 0;  // tensor cores: 0 round to nearest; -1, 1 err as far as documented; 2 either
                      // way; 3 up where the first number of the column is odd, else down
};

extern Settings settings;
extern std::vector<Fiber> fibers;
extern uint32_t epoch;         // block barriers passed by the running block
extern uint32_t block_number;  // blocks of this launch that started, the running one included
extern std::string error;      // the first fault; empty while all is well

inline Fiber* running() { return static_cast<Fiber*>(self); }
void switch_threads();  // to the scheduler; returns when this thread's turn comes again
uint32_t random_number();
std::string at(const void* pc);  // "@module offset", which emulation.py turns into file:line

// memory.cpp
bool is_thread_stack(const char* p);
bool is_kernel_argument(const char* p);
void begin_launch_memory();                      // a launch is a barrier for all earlier accesses
void end_block_memory();                         // shared memory dies with its block
void note_landing(const void* p, size_t bytes);  // of a bulk copy
bool happened(int thread, uint32_t epoch, uint32_t clock);  // before now, for the running thread
const char* shared_at(uint32_t address);                    // of the window of shared memory

// mbarriers.cpp
bool land_a_copy();           // false if none is in flight
void begin_block_barriers();  // forgets those of a block that failed
void end_block_barriers();

// tensor_cores.cpp: a sum, with the error that the settings ask for
float tensor_sum(double sum, double size, bool odd);

// wgmma.cpp
void check_registers(Fiber& f, const void* p, size_t n, bool is_read, const void* pc);
void expect_no_products(const Fiber& f);  // that still run
void begin_block_products();
void end_block_products();

// traffic.cpp
void note_traffic(Fiber& f, const void* pc, bool shared, const char* p, size_t n);
void end_block_traffic();

}  // namespace emu
