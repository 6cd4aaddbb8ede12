// SPDX-License-Identifier: Apache-2.0
// Winners of power_argmax found in small integers and proved by a certificate: most targets are
// left out because a bound of their score lies below a score already reached. Same bits as the
// blocked loop. Bound and proof: docs/power_argmax.md.
#pragma once

#include <atomic>
#include <cmath>

#include "common/alloc.h"
#include "common/poll.h"
#include "cpu/power_screen_kernel.h"

namespace otcuda::cpu {

// Targets whose largest coordinates are alike, so that one unit fits them all.
struct ScreenGroup {
  int64_t begin, count;  // places in the order of the screen
  float unit;
  double norm, residue, reach;  // the most of |y^|, |y' - y^| and their sum
  double top;                   // the most of h + <nu, y'>, raised; -inf: no live target
  double range;                 // from there to the least finite one
  double height;                // the most of |h|, finite ones
};

struct ScreenCounts {
  int64_t pairs = 0;   // that the integers did not rule out at once
  int64_t chains = 0;  // of these, the ones whose scores were computed
};

ScreenKernels power_screen_kernels();  // of the level in force
ScreenKernels power_screen_halves();   // of bfloat16; only where simd_bf16_too()

// How much work may be in vain: little on some samples before the others are looked at, little, or
// twice that of the blocked loop.
enum class ScreenTrust { trial, usual, forced };

class PowerScreen {
 public:
  // Integers of y [N, D], which stays the caller's; x [B, D] shows where samples lie. False where
  // a number is out of range: then there is no screen.
  bool build(const float* y, int64_t N, int64_t D, const float* x, int64_t B, Poll* poll) {
    return build(power_screen_kernels(), y, N, D, x, B, poll);
  }
  bool build(const ScreenKernels& level, const float* y, int64_t N, int64_t D, const float* x,
             int64_t B, Poll* poll);
  void set_heights(const float* h);  // [N], no NaN, no +inf, |h| < 1e30; stays the caller's
  bool empty() const { return groups_.empty(); }
  bool wide() const { return level_.wide; }
  bool halves() const { return level_.halves; }
  bool of_level_in_force() const;  // else it works, but with the kernels of another level

  // x [B, D] -> value, index [B]. A sample left over, out of range or because its block gave up, is
  // marked in `left` [B] and not written. False: most of the work was for nothing, so the rest is
  // left over.
  bool argmax(const float* x, int64_t B, float* value, int64_t* index, uint8_t* left,
              ScreenTrust trust, Poll* poll, ScreenCounts* counts = nullptr) const;

  // The k best of each sample, value, index [B, k], by the contract of common/power_topk.h; left
  // over as in argmax, and where the screen cannot fill a list. `floor` [B]: below the k-th best as
  // far as one can tell, -inf where one cannot; where it is not below, the sample is left over.
  bool topk(const float* x, int64_t B, int k, float* value, int64_t* index, uint8_t* left,
            ScreenTrust trust, Poll* poll, ScreenCounts* counts = nullptr,
            const float* floor = nullptr) const;

  // Whether it will bite on N targets of which these are some, judged by a block of samples: most
  // pairs come early in a scan, so what the later half of the targets costs is at least what
  // others will.
  bool bites(const float* x, int64_t B, int64_t N, Poll* poll) const;

  // For tests of the bound: of all pairs, those that would be left out for their own score's sake.
  // Error terms are scaled by `factor`; 1 is the truth, and then there is none.
  int64_t violations(const float* x, int64_t B, double factor) const;

 private:
  friend class ScreenBlock;
  friend class ScreenRun;
  friend class BestRun;
  friend class ListRun;

  template <class Make>
  bool share_out(const struct ScreenCall& call, const Make& make) const;

  // Of the next block where `left` samples are: three narrow ones cost less than one that is not.
  int64_t block_samples(int64_t left) const {
    return narrow_.samples > 0 && left <= 3 * narrow_.samples ? narrow_.samples : level_.samples;
  }
  int64_t blocks_of(int64_t samples) const {
    int64_t blocks = 0;
    for (; samples > 0; ++blocks) samples -= block_samples(samples);
    return blocks;
  }
  bool centre(const float* x, int64_t B);
  int64_t least_sum(const uint8_t* x, int64_t place) const;
  int64_t violations(class ScreenBlock* block, const ScreenGroup& group) const;
  bool make_groups(Poll* poll);
  uint32_t usual() const;
  void add_groups(int64_t begin, int64_t count);
  void order(const Buffer<uint32_t>& largest);
  void quantise(uint32_t bits, ScreenGroup* group);

  ScreenKernels level_{};   // those that made the integers
  ScreenKernels narrow_{};  // the same for few samples, or for none
  const float *y_ = nullptr, *h_ = nullptr;
  int64_t N_ = 0, D_ = 0, steps_ = 0, sums_ = 0;
  double gamma_ = 0, mu_norm_ = 0, nu_norm_ = 0;
  double sum_error_ = 0;                      // of sums, as a part of the norms' product
  uint32_t usual_ = 0;                        // exponent that most targets share
  double most_target_ = 0, most_sample_ = 0;  // of a coordinate, in units
  Buffer<float> mu_, nu_;                     // [D]
  Buffer<int32_t> order_;                     // [N]: place -> target
  Buffer<int8_t> integers_;                   // [N][4 steps], or bfloat16 in the same bytes
  Buffer<int32_t> start_;                     // [N][sums]; none if wide
  Buffer<int32_t> total_;                     // [N]: sums of the integers
  Buffer<float> norm_, residue_, height_;     // [N]
  Buffer<double> lift_;                       // <nu, y_i - mu>, [N] where nu is not zero
  std::atomic<int32_t> most_lane_{0};         // the most that a 16-bit sum has of integer^2
  Vector<ScreenGroup> groups_;
};

// Whether a screen may pay for B samples; building one takes the time of some dozens of them.
bool power_screen_pays(int64_t B, int64_t N, int64_t D, bool built);

// The same for lists of k.
bool power_screen_pays_topk(int64_t B, int64_t N, int64_t D, int k, bool built);

// About what it takes of the blocked loop's time where it pays, on normal data.
double power_screen_share(int64_t D);

// In float, not below it; for numbers that are finite.
inline float up(double a) { return static_cast<float>(a + std::fabs(a) * 1.2e-7 + 1e-37); }

}  // namespace otcuda::cpu
