// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "common/poll.h"

namespace otcuda::cpu {

// Contract: csrc/common/power_topk.h. Sizes are checked by the binding.
template <class T>
struct TopkProblem {
  const T* x;
  const T* y;
  const T* h;
  int64_t G, B, N, D;
  int k;
  T* value;
  int64_t* index;
};

// The best of each sample, [G, B], and its gap: the contract of power_argmax and of its return_gap.
template <class T>
struct GapProblem {
  const T* x;
  const T* y;
  const T* h;
  int64_t G, B, N, D;
  T* value;
  int64_t* index;
  T* gap;
};

void power_argmax_gap(const GapProblem<float>& problem, Poll* poll = nullptr);
void power_argmax_gap(const GapProblem<double>& problem, Poll* poll = nullptr);

class PowerScreen;
enum class ScreenTrust;

// By the screen of the targets, G = 1, and the blocked loop for the samples it leaves over; false
// where the bound does not bite.
bool power_topk_screened(const PowerScreen& screen, const TopkProblem<float>& problem,
                         ScreenTrust trust, Poll* poll);

// Float32: by a screen built for this call where that pays.
void power_topk(const TopkProblem<float>& problem, Poll* poll = nullptr);
void power_topk(const TopkProblem<double>& problem, Poll* poll = nullptr);

// Every target met, in blocks.
void power_topk_blocked(const TopkProblem<float>& problem, Poll* poll = nullptr);
void power_topk_blocked(const TopkProblem<double>& problem, Poll* poll = nullptr);

}  // namespace otcuda::cpu
