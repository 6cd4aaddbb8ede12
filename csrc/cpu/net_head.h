// SPDX-License-Identifier: Apache-2.0
// The perceptual head of the synthesis. Contract: csrc/common/net.h; arrays as in
// otcuda/codec/head.py.
#pragma once

#include <vector>

#include "cpu/net_layers.h"

namespace otcuda::cpu {

// Arrays `trunk.0.weight`, `trunk.1.first.weight`, ..., `residual.weight`, `gain.weight`,
// `fine.weight`, `out.weight` and their biases.
class NetHead {
 public:
  explicit NetHead(const NetArrays& arrays);

  int64_t inputs() const { return first_.inputs; }  // channels of the features and coarse noise
  int64_t fine_noise() const { return noise_; }
  int64_t layers() const { return 2 * int64_t(blocks_.size()) + 2; }  // of conv3, at 1/8

  // What the trunk makes of features and coarse noise [inputs() - channels of the features, h, w].
  struct Texture {
    NetPlanes residual, gain;
  };
  Texture texture(const NetPlanes& features, int64_t channels, const float* coarse,
                  NetProgress& progress) const;

  // planes = x0 blended with x0 + the texture; both [3, H, W] in units of 64; fine [n, H, W].
  void blend(const Texture& texture, const float* fine, float realism, const float* x0,
             float* planes, NetProgress& progress) const;

  double products(int64_t h8, int64_t w8) const;

 private:
  struct Window;
  void join(const Texture& texture, const float* fine, const float* x0, const Window& at,
            NetPlanes* joined) const;
  void blend_window(const Texture& texture, const float* fine, float realism, const float* x0,
                    const Window& at, float* planes) const;

  int64_t noise_;
  NetConv first_;
  std::vector<NetBlock> blocks_;
  NetConv residual_;
  NetDense gain_;
  NetConv fine_, out_;
};

}  // namespace otcuda::cpu
