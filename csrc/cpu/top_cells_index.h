// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <mutex>

#include "common/alloc.h"
#include "common/poll.h"
#include "cpu/power_screen.h"
#include "cpu/top_cells.h"

namespace otcuda::cpu {

// Lists of csrc/common/top_cells.h for targets that stay while heights and samples change: by the
// screen of small integers where that pays, else by the plain loop; the same bits.
class TopCellsIndex {
 public:
  // y [N, D] stays the caller's.
  TopCellsIndex(const float* y, int64_t N, int64_t D) : y_(y), N_(N), D_(D), h_(N, 0.0f) {}

  void set_heights(const float* h);  // [N]

  // x [B, D] -> index, inner [B, K], cut [B]. `start`: index and inner hold lists of these samples
  // at other heights, which tell about where the new ones end; any would do. `forced`: by the
  // screen where it does not seem to pay, too.
  void lists(const float* x, int64_t B, int K, int32_t* index, float* inner, float* cut, bool start,
             bool forced, Poll* poll);
  // The first of each list alone, [B].
  void winners(const float* x, int64_t B, int32_t* index, float* inner, bool forced, Poll* poll);

  int64_t N() const { return N_; }
  int64_t D() const { return D_; }

 private:
  struct Call;

  bool may_screen(const Call& call) const;
  PowerScreen* screen(const float* x, int64_t B, Poll* poll);
  void starts(const Call& call, Buffer<float>* floor) const;
  void write(const Call& call, const Buffer<int64_t>& places, const Buffer<uint8_t>& left) const;
  void rest(const Call& call, const Buffer<uint8_t>& left, int64_t count) const;
  void plain(const Call& call) const;
  void run(const Call& call);

  const float* const y_;
  const int64_t N_, D_;
  Buffer<float> h_;
  bool heights_fit_ = true;
  int most_k_ = 0;  // k up to which the screen has not given up at these heights
  std::unique_ptr<PowerScreen> screen_;
  std::mutex mutex_;
};

}  // namespace otcuda::cpu
