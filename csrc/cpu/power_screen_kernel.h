// SPDX-License-Identifier: Apache-2.0
// What the levels of power_screen offer to power_screen.cpp. No standard header: ISA files include
// this.
//
// Integers stand for coordinates: a target is signed bytes, a sample bytes without sign, its
// integers with the level's offset added. Narrow levels: coordinates 4 j + {0, 1} and 4 j + {2, 3}
// of 8 steps of four add up in 16 bits each; what overflows in between does no harm, as the end of
// a sum does not (power_screen.cpp sees to it). Wide levels add all up in 32 bits, so that samples
// may have all bits of a byte. Halves: bfloat16 takes the place of the integers, two coordinates in
// the four bytes of a step.
#pragma once

#include <stdint.h>

#include "cpu/power_topk_kernel.h"

namespace otcuda::cpu {

constexpr int kScreenOffset = 64;       // of narrow levels: integers of a sample are -63 .. 63
constexpr int kScreenWideOffset = 128;  // of wide ones: -127 .. 127
constexpr int kScreenTargetMost = 127;
constexpr double kScreenHalvesMost = 8000;     // norm of a row of bfloat16: sums stay below 6.5e7
constexpr int kScreenSteps = 8;                // of four coordinates, of a sum in 16 bits
constexpr int32_t kScreenNever = -1000000000;  // bound of a target that cannot win its panel

// A width so large that no sum, at most 1.2e8, proves more than any bound, and that the least sum,
// -1.07e9, does not overflow.
constexpr int32_t kScreenProvesNothing = 1070000000;

struct ScreenHit {
  int32_t target;  // counted from the first of the panel
  int32_t sample;  // of the block
  int32_t sum;
};

// A block of samples against a panel of targets: pairs whose bound exceeds the sample's threshold.
struct ScreenPanel {
  const uint8_t* x;      // [steps][samples][4], 64-byte aligned
  const int8_t* y;       // [targets][4 steps]
  const int32_t* start;  // narrow, [targets][sums]: two 16-bit halves, minus the offset's share
  const int32_t* bound;  // [targets]: added to the product of the integers; wide: of the bytes
  int64_t targets;       // a multiple of the level's; those too many have bound kScreenNever
  int64_t steps;
  int32_t* threshold;  // [samples], aligned; rises by what is found
  // A target whose sum is s scores more than any with a sum below s - width, unless it is
  // kScreenProvesNothing.
  int32_t width;
  ScreenHit* hits;
  int64_t count, room;  // room for a tile's pairs at least, and one more in `hits`
  int32_t* highest;     // [samples], aligned: where the warm-up leaves the largest sums
};

// Bounds of a panel for a block: (height + a norm + c residue) / unit, and what rounding needs;
// minus what the offset adds to the products.
struct ScreenBounds {
  const float *height, *norm, *residue;  // [targets]
  const int32_t* total;                  // [targets]: sums of their integers
  int32_t offset;                        // 0 on narrow levels, whose start takes care of it
  float a, c, inverse;                   // inverse = 1 / unit
  int64_t targets;
  int32_t* bound;
};

// One row of coordinates into integers.
struct ScreenRow {
  const float* row;     // [D]
  const float* centre;  // [D], zeros up to a multiple of 8
  int64_t D;
  float unit, inverse;
  int32_t offset;  // added to the integers that are written
  int32_t* start;  // narrow: where to put the halves of ScreenPanel::start, or null
  int8_t* out;     // [4 steps], zeros (and the offset) beyond D
};

struct ScreenRowSums {
  float residue;      // sum of (row - centre - unit integer)^2
  float square;       // of (row - centre)^2
  float whole;        // of row^2
  double middle;      // of row times `other`
  double integers;    // of integer^2
  int32_t total;      // of the integers
  int32_t most_lane;  // narrow: the most that a 16-bit sum has of integer^2
};

// A group of targets into integers of one unit, into which their coordinates fit.
struct ScreenTargets {
  const float* y;        // [.., D]
  const int32_t* order;  // [count]: which rows of y
  int64_t count, D, steps, sums;
  const float* centre;  // [D]
  const float* other;   // [D], or null
  float unit;
  int8_t* integers;       // [count][4 steps], zeros beyond D
  int32_t* start;         // narrow, [count][sums]: as of ScreenPanel
  float *norm, *residue;  // [count]: |unit integers| and |row - centre - unit integers|, or more
  int32_t* total;         // [count]: sums of the integers
  double* lift;           // [count]: row times `other`, where there is one
  // Of the group:
  float most_norm, most_residue, most_reach;  // reach: of the sum of both
  int32_t most_lane;                          // as of ScreenRowSums
};

// Pairs whose scores are wanted: the chain of the contract, then the height.
struct ScreenPairs {
  const float* const* x;  // [count] rows
  const float* const* y;
  const float* h;
  int64_t D, count;
  float* score;
};

struct ScreenKernels {
  int samples, targets;  // of a block, of a tile
  bool wide, halves;
  // In steps of the blocked loop: of a pair above its threshold, and of a step of its chain.
  double pair_cost, chain_cost;
  double most_spent;  // on pairs where the screen still wins, as a part of the blocked loop
  // Target from which to go on once the hits are dealt with; `targets` at the end.
  int64_t (*panel)(ScreenPanel*, int64_t from);
  void (*warm)(ScreenPanel*, int64_t targets);  // the largest sums of the first targets
  void (*bounds)(const ScreenBounds&);
  // Of each row, the bits of max |row - centre|.
  void (*largest)(const float* row, const float* centre, int64_t rows, int64_t D, uint32_t* bits);
  ScreenRowSums (*quantise)(const ScreenRow&, const float* other);
  void (*targets_in)(ScreenTargets*);
  // Puts a target where it belongs; of equal scores the lower target comes first. `room`: places of
  // the list in use, whole steps.
  void (*enter)(TopkList<float>*, int room, float score, int32_t target);

  int offset() const { return halves ? 0 : wide ? kScreenWideOffset : kScreenOffset; }
};

ScreenKernels power_screen_portable();
ScreenKernels power_screen_avx2();
ScreenKernels power_screen_avx512();
ScreenKernels power_screen_vnni();
ScreenKernels power_screen_vnni_narrow();  // for the samples that fill no block
ScreenKernels power_screen_bf16();
ScreenKernels power_screen_bf16_narrow();

void power_screen_chains_portable(const ScreenPairs& pairs);
void power_screen_chains_avx2(const ScreenPairs& pairs);
void power_screen_chains_avx512(const ScreenPairs& pairs);

}  // namespace otcuda::cpu
