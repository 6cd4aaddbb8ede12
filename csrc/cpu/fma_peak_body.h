// SPDX-License-Identifier: Apache-2.0
// A loop of nothing but independent fused multiply-adds on registers.
#pragma once

#include "cpu/fma_peak_kernel.h"

namespace otcuda::cpu {
namespace {

// 12 sums hide a latency of 5 cycles at 2 a cycle, and leave room for the operands in 16 registers.
template <class Lanes>
double spin(int64_t rounds) {
  constexpr int kSums = 12;
  typename Lanes::Vector sum[kSums];
#pragma GCC unroll 12
  for (int k = 0; k < kSums; ++k) sum[k] = Lanes::zero();
  const auto a = Lanes::half();
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int k = 0; k < kSums; ++k) {
      sum[k] = Lanes::fma(sum[k], a, a);
      asm volatile("" : "+v"(sum[k]));  // each sum is wanted each round: no shortcut
    }
  }
  return 2.0 * kSums * Lanes::kLanes * double(rounds);
}

}  // namespace
}  // namespace otcuda::cpu
