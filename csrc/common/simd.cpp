// SPDX-License-Identifier: Apache-2.0
#include "common/simd.h"

#include <atomic>
#include <cstdlib>

#include "common/check.h"

namespace otcuda {
namespace {

std::atomic<int> forced{-1};

bool has(SimdLevel level) {
  switch (level) {
    case SimdLevel::portable:
      return true;
#if OTCUDA_X86_LEVELS
    case SimdLevel::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case SimdLevel::avx512:
      return has(SimdLevel::avx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq");
#endif
    default:
      return false;
  }
}

SimdLevel level_by_name(const std::string& name, const char* asked_by) {
  std::string names;
  for (const SimdLevel level : simd_levels()) {
    if (name == simd_level_name(level)) return level;
    names += std::string(names.empty() ? "" : ", ") + simd_level_name(level);
  }
  throw BackendError(std::string(asked_by) + " asks for level '" + name +
                     "'; this CPU and build have: " + names);
}

}  // namespace

const char* simd_level_name(SimdLevel level) {
  constexpr const char* names[] = {"portable", "avx2", "avx512"};
  return names[static_cast<int>(level)];
}

std::vector<SimdLevel> simd_levels() {
  std::vector<SimdLevel> levels;
  for (const SimdLevel level : {SimdLevel::portable, SimdLevel::avx2, SimdLevel::avx512}) {
    if (has(level)) levels.push_back(level);
  }
  return levels;
}

SimdLevel simd_level() {
  const int level = forced.load();
  if (level >= 0) return static_cast<SimdLevel>(level);
  const char* name = std::getenv("OTCUDA_SIMD");
  if (name != nullptr && *name != '\0' && std::string(name) != "auto") {
    return level_by_name(name, "OTCUDA_SIMD");
  }
  static const SimdLevel best = simd_levels().back();
  return best;
}

bool simd_has_vnni() {
#if OTCUDA_X86_LEVELS
  static const bool there = __builtin_cpu_supports("avx512vnni");
  return there && simd_level() == SimdLevel::avx512;
#else
  return false;
#endif
}

bool simd_has_vbmi2() {
#if OTCUDA_X86_LEVELS
  static const bool there =
      __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2");
  return there && simd_level() == SimdLevel::avx512;
#else
  return false;
#endif
}

void set_simd_level(const std::string& name) {
  forced.store(name == "auto" ? -1 : static_cast<int>(level_by_name(name, "set_simd_level")));
}

}  // namespace otcuda
