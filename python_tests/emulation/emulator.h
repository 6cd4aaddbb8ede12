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

struct Fiber : Thread {
  enum State { ready, at_block_barrier, at_collective, done };
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
void begin_launch_memory();  // a launch is a barrier for all earlier accesses
void end_block_memory();     // shared memory dies with its block

// traffic.cpp
void note_traffic(Fiber& f, const void* pc, bool shared, const char* p, size_t n);
void end_block_traffic();

}  // namespace emu
