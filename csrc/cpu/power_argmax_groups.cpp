// SPDX-License-Identifier: Apache-2.0
#include "cpu/power_argmax_groups.h"

#include "common/threads.h"

namespace otcuda::cpu {
namespace {

constexpr double kNanosecondsPerFma = 0.025;

// Groups that each deserve the whole team take it in turn; smaller ones are handed out, one thread
// each.
template <class T>
void solve(int64_t G, const ArgmaxProblem<T>& p, Poll* poll) {
  const auto group = [&](int64_t g, Poll* to) {
    power_argmax(ArgmaxProblem<T>{p.x + g * p.B * p.D, p.y + g * p.N * p.D, p.h + g * p.N, p.B, p.N,
                                  p.D, p.value + g * p.B, p.index + g * p.B},
                 to);
  };
  const double work = kNanosecondsPerFma * double(p.B) * double(p.N) * double(p.D + 2);
  const int threads = threads_for(work * double(G));
  if (threads == threads_for(work)) {
    for (int64_t g = 0; g < G; ++g) group(g, poll);
    return;
  }
  parallel_for(
      G, 1,
      [&](int64_t g, int64_t) {
        const OneThread alone;
        group(g, nullptr);
      },
      poll, threads);
}

}  // namespace

void power_argmax_groups(int64_t G, const ArgmaxProblem<float>& first, Poll* poll) {
  solve(G, first, poll);
}
void power_argmax_groups(int64_t G, const ArgmaxProblem<double>& first, Poll* poll) {
  solve(G, first, poll);
}

}  // namespace otcuda::cpu
