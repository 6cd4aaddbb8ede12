// SPDX-License-Identifier: Apache-2.0
#include "common/simd.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "common/check.h"

namespace otcuda {
namespace {

// The levels and, last, what goes by the names of vnni and bf16.
enum class Choice : int { portable, avx2, avx512, vnni, bf16 };
constexpr const char* kNames[] = {"portable", "avx2", "avx512", "vnni", "bf16"};
constexpr Choice kChoices[] = {Choice::portable, Choice::avx2, Choice::avx512, Choice::vnni,
                               Choice::bf16};

std::atomic<int> forced{-1};

bool has(Choice choice) {
  switch (choice) {
    case Choice::portable:
      return true;
#if OTCUDA_X86_LEVELS
    case Choice::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Choice::avx512:
      return has(Choice::avx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq");
    case Choice::vnni:
      return has(Choice::avx512) && __builtin_cpu_supports("avx512vnni");
    case Choice::bf16:
      return has(Choice::vnni) && __builtin_cpu_supports("avx512bf16");
#endif
    default:
      return false;
  }
}

Choice choice_by_name(const std::string& name, const char* asked_by) {
  std::string names;
  for (const Choice choice : kChoices) {
    if (!has(choice)) continue;
    if (name == kNames[static_cast<int>(choice)]) return choice;
    names += std::string(names.empty() ? "" : ", ") + kNames[static_cast<int>(choice)];
  }
  throw BackendError(std::string(asked_by) + " asks for level '" + name +
                     "'; this CPU and build have: " + names);
}

Choice best_choice() {
  Choice best = Choice::portable;
  for (const Choice choice : {Choice::avx2, Choice::avx512, Choice::vnni}) {
    if (has(choice)) best = choice;
  }
  return best;
}

Choice choice() {
  const int level = forced.load();
  if (level >= 0) return static_cast<Choice>(level);
  const char* name = std::getenv("OTCUDA_SIMD");
  if (name != nullptr && *name != '\0' && std::string(name) != "auto") {
    return choice_by_name(name, "OTCUDA_SIMD");
  }
  static const Choice best = best_choice();
  return best;
}

}  // namespace

const char* simd_level_name(SimdLevel level) { return kNames[static_cast<int>(level)]; }

std::vector<SimdLevel> simd_levels() {
  std::vector<SimdLevel> levels;
  for (const SimdLevel level : {SimdLevel::portable, SimdLevel::avx2, SimdLevel::avx512}) {
    if (has(static_cast<Choice>(level))) levels.push_back(level);
  }
  return levels;
}

SimdLevel simd_level() {
  return static_cast<SimdLevel>(std::min(static_cast<int>(choice()), int(SimdLevel::avx512)));
}

bool simd_vnni() { return choice() >= Choice::vnni; }

bool simd_bf16_only() { return choice() == Choice::bf16; }

bool simd_bf16_too() {
  static const bool there = has(Choice::bf16);
  if (!there || forced.load() >= 0) return false;
  const char* name = std::getenv("OTCUDA_SIMD");
  return name == nullptr || *name == '\0' || std::string(name) == "auto";
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
  forced.store(name == "auto" ? -1 : static_cast<int>(choice_by_name(name, "set_simd_level")));
}

}  // namespace otcuda
