// SPDX-License-Identifier: Apache-2.0
// The picture filter of the synthesis. Contract: csrc/common/net.h; arrays as in
// otcuda/codec/networks.py.
#pragma once

#include <string>
#include <vector>

#include "cpu/net_layers.h"

namespace otcuda::cpu {

// Arrays `see.weight`, `know.weight`, `body.0.first.weight`, ..., and their biases, below a name.
class NetFilter {
 public:
  // known: channels that the synthesis has at 1/8.
  NetFilter(const NetArrays& arrays, const std::string& name, int64_t known);

  // planes = x0 + what x0 and `known` [h8, w8] say; both [3, 8 h8, 8 w8] in units of 64.
  void run(const NetPlanes& known, const float* x0, float* planes, NetProgress& progress) const;

  double products(int64_t h8, int64_t w8) const;

 private:
  struct Stripe;
  NetPlanes seen(const NetPlanes& known, const Stripe& at, const float* x0,
                 NetProgress& progress) const;
  static void read(const Stripe& at, const float* x0, int64_t y, NetPlanes* pixels);
  int64_t layers() const { return 2 * int64_t(blocks_.size()) + 2; }

  NetConv see_;
  std::vector<NetDense> know_;  // one for each of the 16 places of the shuffle
  std::vector<NetBlock> blocks_;
  NetConv last_;
};

}  // namespace otcuda::cpu
