// SPDX-License-Identifier: Apache-2.0
#include "common/alloc.h"

#include <atomic>
#include <cstdlib>
#include <string>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "common/check.h"

namespace otcuda {
namespace {

std::atomic<int64_t> limit{0};
std::atomic<int64_t> in_use{0};
std::atomic<int64_t> peak{0};
std::atomic<int64_t> count{0};
std::atomic<int64_t> fail_at{0};  // value of `count` whose allocation fails; 0: none

int64_t rounded(int64_t bytes) {
  return (bytes + int64_t(kAlignment) - 1) / int64_t(kAlignment) * int64_t(kAlignment);
}

// Asks for pages of 2 MiB inside a large block: a first touch then costs one fault for 512, and a
// random read no walk through the page tables. Not aligned to them: what the C library keeps for
// the next call would not fit it.
void wish_for_huge_pages(void* data, size_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t(1) << 21;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + kPage - 1) & ~(kPage - 1);
  const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + size) & ~(kPage - 1);
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data, (void)size;
#endif
}

[[noreturn]] void refuse(int64_t bytes, const char* why) {
  throw LimitError(std::string(why) + ": " + std::to_string(bytes) + " bytes asked for, " +
                   std::to_string(in_use.load()) + " in use, limit " +
                   std::to_string(limit.load()) + " (0: none)");
}

}  // namespace

void* allocate(int64_t bytes) {
  if (bytes < 0 || bytes > INT64_MAX - int64_t(kAlignment)) refuse(bytes, "impossible allocation");
  const int64_t call = count.fetch_add(1) + 1;
  if (call == fail_at.load()) refuse(bytes, "allocation made to fail by fail_allocation");
  const int64_t size = rounded(bytes > 0 ? bytes : 1);
  const int64_t cap = limit.load();
  const int64_t now = in_use.fetch_add(size) + size;
  if (cap > 0 && now > cap) {
    in_use.fetch_sub(size);
    refuse(bytes, "over the memory limit");
  }
  void* data = std::aligned_alloc(kAlignment, static_cast<size_t>(size));
  if (data == nullptr) {
    in_use.fetch_sub(size);
    refuse(bytes, "out of memory");
  }
  wish_for_huge_pages(data, static_cast<size_t>(size));
  int64_t seen = peak.load();
  while (seen < now && !peak.compare_exchange_weak(seen, now)) {
  }
  return data;
}

void deallocate(void* data, int64_t bytes) noexcept {
  in_use.fetch_sub(rounded(bytes > 0 ? bytes : 1));
  std::free(data);
}

void set_memory_limit(int64_t bytes) {
  OTCUDA_CHECK(bytes >= 0,
               "memory limit is " + std::to_string(bytes) + " bytes, expected 0 or more");
  limit.store(bytes);
}

int64_t memory_limit() { return limit.load(); }
int64_t memory_in_use() { return in_use.load(); }
int64_t memory_peak() { return peak.load(); }
void reset_memory_peak() { peak.store(in_use.load()); }
int64_t allocation_count() { return count.load(); }

void fail_allocation(int64_t k) { fail_at.store(k <= 0 ? 0 : count.load() + k); }

}  // namespace otcuda
