// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

#include "common/poll.h"

namespace otcuda::cpu {

class PowerScreen;
enum class ScreenTrust;

// Contract: csrc/common/power_argmax.h. Sizes are checked by the binding.
template <class T>
struct ArgmaxProblem {
  const T* x;
  const T* y;
  const T* h;
  int64_t B, N, D;
  T* value;
  int64_t* index;
};

// Float32: by a screen built for this call where that pays.
void power_argmax(const ArgmaxProblem<float>& problem, Poll* poll = nullptr);
void power_argmax(const ArgmaxProblem<double>& problem, Poll* poll = nullptr);

// Every target met, in blocks.
void power_argmax_blocked(const ArgmaxProblem<float>& problem, Poll* poll = nullptr);
void power_argmax_blocked(const ArgmaxProblem<double>& problem, Poll* poll = nullptr);

// By a screen of the problem's y and h, and by `rest` what it leaves over (in blocks where there is
// none); false: it gave up.
using ArgmaxRest = std::function<void(const ArgmaxProblem<float>& problem, bool gave_up)>;
bool power_argmax_screened(const PowerScreen& screen, const ArgmaxProblem<float>& problem,
                           ScreenTrust trust, Poll* poll = nullptr,
                           const ArgmaxRest& rest = nullptr);

// Whether a screen's bound bites, going by some of the targets and samples; value and index of the
// problem are not written.
bool power_argmax_screen_bites(const ArgmaxProblem<float>& problem, Poll* poll);

}  // namespace otcuda::cpu
