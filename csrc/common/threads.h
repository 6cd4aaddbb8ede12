// SPDX-License-Identifier: Apache-2.0
// A team of threads for one call, joined before it returns: nothing stays behind, so fork is safe
// and idle cores stay idle.
#pragma once

#include <cstdint>
#include <functional>

#include "common/poll.h"

namespace otcuda {

// set_num_threads, else OTCUDA_NUM_THREADS, else what a host library such as torch uses, else the
// cores of this process.
int num_threads();
void set_num_threads(int n);       // 0: back to the default
void set_host_num_threads(int n);  // 0: no host library

// Calls body(begin, end) over disjoint blocks of at most `grain` that cover [0, n), on up to
// `threads` threads (0: num_threads()). Blocks are handed out in order, whoever is free takes the
// next. Every thread runs with default floating point: round to nearest, subnormals kept. The first
// exception stops the rest and is rethrown. The calling thread takes part and polls between its
// blocks, so a block should stay under 10 ms.
void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body,
                  Poll* poll = nullptr, int threads = 0);

// For bodies whose blocks take longer: called at least every 10 ms from inside, it polls on the
// calling thread, and leaves the block by an exception where the team has been stopped. Does
// nothing outside parallel_for.
void heartbeat();

// As many threads as a call of this many CPU nanoseconds deserves: one below 50 us each.
int threads_for(double nanoseconds);

// While this lives, threads_for on the calling thread says one: for a body of parallel_for that
// calls what would make a team of its own.
class OneThread {
 public:
  OneThread();
  ~OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  bool saved_;
};

// Default floating point for the calling thread while this lives; puts the caller's mode back.
class DefaultFloatMode {
 public:
  DefaultFloatMode();
  ~DefaultFloatMode();
  DefaultFloatMode(const DefaultFloatMode&) = delete;
  DefaultFloatMode& operator=(const DefaultFloatMode&) = delete;

 private:
  unsigned saved_ = 0;
};

}  // namespace otcuda
