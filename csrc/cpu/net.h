// SPDX-License-Identifier: Apache-2.0
// The picture networks on the CPU. Contract: csrc/common/net.h; names and shapes of the arrays are
// those of otcuda/codec/networks.py.
#pragma once

#include <memory>
#include <vector>

#include "cpu/net_filter.h"
#include "cpu/net_head.h"
#include "cpu/net_layers.h"

namespace otcuda::cpu {

// Pictures to latents; arrays `klt.weight`, `net.1.weight` ...
class NetAnalysis {
 public:
  explicit NetAnalysis(const NetArrays& arrays);

  int64_t channels() const { return channels_; }

  // rgb [height, width, 3] -> latents [M, 4 ceil(height / 64), 4 ceil(width / 64)].
  void run(const uint8_t* rgb, int64_t height, int64_t width, float* latents, Poll& poll) const;

 private:
  void finish(const NetPlanes& pixels, const NetPlanes& branch, float* latents,
              NetProgress& progress) const;

  int64_t channels_;
  NetDense klt_;
  NetConv first_;
  std::vector<NetBlock> blocks8_;
  NetDense down_;
  std::vector<NetBlock> blocks16_;
  NetConv last_;
};

// Latents [M, h, w], h and w multiples of 4, and t = 2 (log2 D - 8).
struct NetLatents {
  const float* values;
  int64_t h, w;
  float t;
};

// What the perceptual head adds to a picture: realism in [0, 1], noise [n, 2 h, 2 w] of the
// channels that the head takes beyond the features, and [head.fine_noise(), 16 h, 16 w].
struct NetPerception {
  const NetHead* head;
  const float *coarse, *fine;
  float realism;
};

// Latents to planes; arrays `klt.weight`, `coarse.0.weight`, ..., `fine.0.first.weight` ..., and
// those of a picture filter (`filter.see.weight` ...) or none.
class NetSynthesis {
 public:
  explicit NetSynthesis(const NetArrays& arrays);

  int64_t channels() const { return channels_; }

  // latents -> planes [3, 16 h, 16 w] in units of 64; `perception` may be null.
  void run(const NetLatents& latents, const NetPerception* perception, float* planes,
           Poll& poll) const;
  int64_t features() const { return width_; }

 private:
  NetPlanes input(const NetLatents& latents) const;
  NetPlanes features_of(const NetPlanes& input, NetProgress& progress) const;
  void finish(const NetPlanes& input, const NetPlanes& branch, float* planes,
              NetProgress& progress) const;

  int64_t channels_;
  NetDense klt_;
  NetConv first_;
  std::vector<NetBlock> blocks16_;
  int64_t width_;             // channels at 1/8
  std::vector<NetDense> up_;  // one for each of the four places of the shuffle
  std::vector<NetBlock> blocks8_;
  NetConv last_;
  std::unique_ptr<NetFilter> filter_;  // may be null
};

// A picture cut out of planes [3, h, w] in units of 64: its top left corner at (top, left), and
// `out` [height, width, 3]. Without colour if `grey`.
struct NetCut {
  int64_t h, w, top, left, height, width;
  bool grey;
};
void net_picture(const NetCut& cut, const float* planes, uint8_t* out, Poll& poll);

}  // namespace otcuda::cpu
