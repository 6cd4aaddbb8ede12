// SPDX-License-Identifier: Apache-2.0
// Bank conflicts and sectors by instruction: accesses are grouped by (instruction, warp, n-th
// execution), as the hardware would see them.
#include <algorithm>
#include <array>

#include "emulator.h"

namespace emu {
namespace {
constexpr size_t kBankBytes = 4, kBanks = 32, kSectorBytes = 32;

using Lanes = std::vector<std::pair<const char*, size_t>>;
struct Count {
  uint64_t requests = 0, units = 0, ideal = 0;  // units: wavefronts, or sectors
};
std::map<Site, std::map<uint64_t, Lanes>> trace;  // of the running block: (warp, visit) -> lanes
std::map<Site, Count> counts;
std::string report;

std::vector<uintptr_t> distinct_units(const Lanes& lanes, size_t unit) {
  std::vector<uintptr_t> units;
  for (auto& [p, n] : lanes) {
    for (size_t b = 0; b < n; b += kBankBytes) units.push_back((uintptr_t(p) + b) / unit);
  }
  std::sort(units.begin(), units.end());
  units.erase(std::unique(units.begin(), units.end()), units.end());
  return units;
}

void count_request(Count& out, const Lanes& lanes, bool shared) {
  ++out.requests;
  const auto units = distinct_units(lanes, shared ? kBankBytes : kSectorBytes);
  if (shared) {  // words of one bank take turns
    std::array<uint64_t, kBanks> bank{};
    for (auto u : units) ++bank[u % kBanks];
    out.units += *std::max_element(bank.begin(), bank.end());
    out.ideal += (units.size() + kBanks - 1) / kBanks;
  } else {
    size_t bytes = 0;
    for (auto& lane : lanes) bytes += lane.second;
    out.units += units.size();
    out.ideal += std::min(units.size(), (bytes + kSectorBytes - 1) / kSectorBytes);
  }
}
}  // namespace

void note_traffic(Fiber& f, const void* pc, bool shared, const char* p, size_t n) {
  const Site site{pc, shared};
  trace[site][uint64_t(f.warp) << 32 | f.visits[site]++].push_back({p, n});
}

void end_block_traffic() {
  for (auto& [site, groups] : trace) {
    for (auto& group : groups) count_request(counts[site], group.second, site.second);
  }
  trace.clear();
}
}  // namespace emu

// One line a site: place, memory, requests, units, least units possible.
extern "C" const char* emu_take_traffic() {
  emu::report.clear();
  for (auto& [site, c] : emu::counts) {
    emu::report += emu::at(site.first) + (site.second ? " shared " : " global ") +
                   std::to_string(c.requests) + " " + std::to_string(c.units) + " " +
                   std::to_string(c.ideal) + "\n";
  }
  emu::counts.clear();
  return emu::report.c_str();
}
