// SPDX-License-Identifier: Apache-2.0
// How a long native loop hears of signals, shows progress and keeps a deadline.
//
// The thread that called the op, and no other, calls the Poll at least every 20 ms; parallel_for
// does so between its blocks. The callback runs at most every 10 ms. When it returns false,
// Interrupted is thrown; what it throws itself goes through to the caller. The core knows nothing
// of Python: the binding puts PyErr_CheckSignals and the user's callback inside.
#pragma once

#include <chrono>
#include <functional>
#include <utility>

#include "common/check.h"

namespace otcuda {

class Poll {
 public:
  using Callback = std::function<bool(double progress)>;  // progress in [0, 1]

  Poll() = default;  // nobody listens
  explicit Poll(Callback callback) : callback_(std::move(callback)) {}

  void operator()(double progress) {
    if (!callback_) return;
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(10)) return;
    last_ = now;
    call(progress);
  }

  // At once, whenever the last one was.
  void call(double progress) {
    if (callback_ && !callback_(progress)) throw Interrupted("stopped by the callback");
  }

 private:
  Callback callback_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace otcuda
