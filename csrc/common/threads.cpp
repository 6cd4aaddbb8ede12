// SPDX-License-Identifier: Apache-2.0
#include "common/threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace otcuda {
namespace {

constexpr int kMostThreads = 1024;
std::atomic<int> forced{0};
std::atomic<int> host{0};

int cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

struct Stopped {};  // leaves a block whose team has failed elsewhere

struct Team;
thread_local Team* current_team = nullptr;
thread_local Poll* current_poll = nullptr;  // on the leader alone
thread_local bool one_thread = false;

// What the members of a team share.
struct Team {
  Team(const std::function<void(int64_t, int64_t)>& body, int64_t n, int64_t grain)
      : body(body), n(n), grain(grain) {}

  const std::function<void(int64_t, int64_t)>& body;
  const int64_t n, grain;
  std::atomic<int64_t> next{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable finished;
  int running = 0;                 // workers, not the caller
  std::exception_ptr exception{};  // the first one

  void fail() {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!exception) exception = std::current_exception();
    stop = true;
  }

  // Takes one block; false when there is none left.
  bool step() {
    const int64_t begin = next.fetch_add(grain);
    if (begin >= n || stop) return false;
    body(begin, std::min(n, begin + grain));
    return true;
  }

  void beat() {
    if (stop) throw Stopped();
    if (current_poll != nullptr) (*current_poll)(progress());
  }

  void work() {
    current_team = this;
    try {
      const DefaultFloatMode mode;
      while (step()) {
      }
    } catch (const Stopped&) {
    } catch (...) {
      fail();
    }
    const std::lock_guard<std::mutex> lock(mutex);
    --running;
    finished.notify_all();
  }

  double progress() const { return std::min(1.0, double(next.load()) / double(n)); }

  // The caller works too; when no block is left it waits for the others, and polls all the while.
  void lead(Poll* poll) {
    Team* const outer_team = current_team;
    Poll* const outer_poll = current_poll;
    current_team = this;
    current_poll = poll;
    try {
      {
        const DefaultFloatMode mode;
        while (step()) beat();
      }
      std::unique_lock<std::mutex> lock(mutex);
      while (running > 0) {
        finished.wait_for(lock, std::chrono::milliseconds(poll != nullptr ? 10 : 1000));
        if (poll == nullptr || running == 0) continue;
        lock.unlock();
        (*poll)(progress());
        lock.lock();
      }
    } catch (const Stopped&) {
    } catch (...) {
      fail();
    }
    current_team = outer_team;
    current_poll = outer_poll;
  }
};

}  // namespace

int num_threads() {
  const int n = forced.load();
  if (n > 0) return n;
  const char* text = std::getenv("OTCUDA_NUM_THREADS");
  if (text != nullptr && *text != '\0') {
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    OTCUDA_CHECK(*end == '\0' && value >= 1 && value <= kMostThreads,
                 "OTCUDA_NUM_THREADS is '" + std::string(text) + "', expected 1 to 1024");
    return static_cast<int>(value);
  }
  const int by_host = host.load();
  return by_host > 0 ? by_host : std::min(cores(), kMostThreads);
}

void set_num_threads(int n) {
  OTCUDA_CHECK(n >= 0 && n <= kMostThreads,
               "number of threads is " + std::to_string(n) + ", expected 0 (default) to 1024");
  forced.store(n);
}

void set_host_num_threads(int n) { host.store(std::clamp(n, 0, kMostThreads)); }

void heartbeat() {
  if (current_team != nullptr) current_team->beat();
}

int threads_for(double nanoseconds) {
  const int most = one_thread ? 1 : num_threads();
  return static_cast<int>(std::min<double>(most, std::max(1.0, nanoseconds / 50e3)));
}

void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body,
                  Poll* poll, int threads) {
  if (n <= 0) return;
  grain = std::max<int64_t>(1, grain);
  const int64_t blocks = (n + grain - 1) / grain;
  const int64_t size = std::min<int64_t>(threads > 0 ? threads : num_threads(), blocks);
  Team team(body, n, grain);
  std::vector<std::thread> workers;
  workers.reserve(static_cast<size_t>(size));
  for (int64_t k = 1; k < size; ++k) {
    {
      const std::lock_guard<std::mutex> lock(team.mutex);
      ++team.running;
    }
    try {
      workers.emplace_back([&team] { team.work(); });
    } catch (
        const std::system_error&) {  // no more threads to be had: a smaller team does the same work
      const std::lock_guard<std::mutex> lock(team.mutex);
      --team.running;
      break;
    }
  }
  team.lead(poll);
  for (std::thread& worker : workers) worker.join();
  if (team.exception) std::rethrow_exception(team.exception);
}

OneThread::OneThread() : saved_(one_thread) { one_thread = true; }
OneThread::~OneThread() { one_thread = saved_; }

#if defined(__x86_64__)
DefaultFloatMode::DefaultFloatMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
DefaultFloatMode::~DefaultFloatMode() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
DefaultFloatMode::DefaultFloatMode() {
  uint64_t mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  saved_ = static_cast<unsigned>(mode);
  asm volatile("msr fpcr, %0" : : "r"(uint64_t(0)));
}
DefaultFloatMode::~DefaultFloatMode() { asm volatile("msr fpcr, %0" : : "r"(uint64_t(saved_))); }
#else
DefaultFloatMode::DefaultFloatMode() {}
DefaultFloatMode::~DefaultFloatMode() {}
#endif

}  // namespace otcuda
