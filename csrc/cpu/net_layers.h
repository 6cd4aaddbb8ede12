// SPDX-License-Identifier: Apache-2.0
// Layers of net: activations with a border, packed weights, and their products over threads.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "common/alloc.h"
#include "common/net.h"
#include "common/poll.h"
#include "common/tensor_view.h"
#include "cpu/net_kernels.h"

namespace otcuda::cpu {

inline int64_t net_padded(int64_t channels) {
  return (channels + kNetBlock - 1) / kNetBlock * kNetBlock;
}

// Activations [h, w, channels] inside a border of one zero pixel; channels are padded to whole
// blocks with zeros.
class NetPlanes {
 public:
  NetPlanes(int64_t h, int64_t w, int64_t channels);

  int64_t h, w, channels;  // channels: padded
  int64_t row() const { return (w + 2) * channels; }
  float* at(int64_t y, int64_t x) { return data_.data() + (y + 1) * row() + (x + 1) * channels; }
  const float* at(int64_t y, int64_t x) const { return const_cast<NetPlanes*>(this)->at(y, x); }

 private:
  Buffer<float> data_;
};

// Arrays of a network by name, float32, as they stand in a weights file.
struct NetArrays {
  std::function<bool(const std::string& name)> has;
  std::function<TensorView(const std::string& name)> get;
};

// Weights of a layer whose products are summed directly.
struct NetDense {
  // `name`.weight [outputs, inputs, kernel, kernel]. `order`, where given, says which row of the
  // weights an output of the layer is; -1: zeros.
  NetDense(const NetArrays& arrays, const std::string& name, int64_t inputs, int64_t kernel,
           bool has_bias, const std::vector<int64_t>& order);

  double products(int64_t n) const { return double(n * inputs * outputs * kernel * kernel); }

  int64_t inputs, kernel, outputs;  // outputs: padded
  Buffer<float> weights, bias;      // [blocks][kernel^2][inputs][16]; bias may be empty
};

// Weights of conv3, transformed.
struct NetConv {
  NetConv(const NetArrays& arrays, const std::string& name, int64_t inputs, int64_t outputs);

  double products(int64_t h, int64_t w) const {
    return double(h / kNetTile * (w / kNetTile)) * kNetPoints * double(inputs * outputs);
  }

  int64_t inputs, outputs;      // outputs: padded
  Buffer<float> weights, bias;  // [36][blocks][inputs][16]
};

// x + conv3(leaky(conv3(x))).
struct NetBlock {
  NetBlock(const NetArrays& arrays, const std::string& name, int64_t width)
      : first(arrays, name + ".first", width, width),
        second(arrays, name + ".second", width, width) {}

  NetConv first, second;
};

// The blocks `name`.`begin`, `begin` + 1 ... as many as there are.
std::vector<NetBlock> net_blocks(const NetArrays& arrays, const std::string& name, int begin,
                                 int64_t width);

double net_products_of(const std::vector<NetBlock>& blocks, int64_t h, int64_t w);

// Rows 0 .. outputs - 1 in their order.
std::vector<int64_t> net_straight(int64_t outputs);

// Rows of a 1 x 1 layer that a pixel shuffle by n moves to place (k / n, k % n).
std::vector<int64_t> net_shuffled_rows(int64_t width, int64_t n, int64_t k);

// How many outputs (rows of the weight) and inputs an array has; at most 4096 of each.
int64_t net_outputs(const NetArrays& arrays, const std::string& name);
void net_check_outputs(const std::string& name, int64_t size, int64_t expected);
int64_t net_inputs(const NetArrays& arrays, const std::string& name);

// A poll for one layer after the other: progress in [0, 1] over all of them.
class NetProgress {
 public:
  NetProgress(Poll& poll, double products) : poll_(poll), total_(products) {}

  // Runs layer(poll), a share `products` of the whole.
  template <class Layer>
  void step(double products, const Layer& layer) {
    Poll inner([&](double share) {
      poll_((done_ + share * products) / total_);
      return true;
    });
    layer(inner);
    done_ += products;
    poll_(done_ / total_);  // layers shorter than the inner poll's pause are heard of here
  }

 private:
  Poll& poll_;
  double done_ = 0.0, total_;
};

struct NetActivation {
  bool inside = false, after = false;  // leaky before and after the skip is added
};

// out = leaky(skip + leaky(conv3(x) + bias)); skip may be out.
void net_conv(const NetConv& layer, const NetPlanes& x, const NetActivation& activation,
              const NetPlanes* skip, NetPlanes* out, NetProgress& progress);

// The same without a skip, on the calling thread, within a block of parallel_for.
void net_conv_here(const NetConv& layer, const NetPlanes& x, const NetActivation& activation,
                   NetPlanes* out);

// x = leaky(blocks(x)).
void net_run_blocks(const std::vector<NetBlock>& blocks, NetPlanes* x, NetProgress& progress);

// Rows of products of a dense layer: all its blocks, in pieces that leave time to poll.
void net_products(const NetDense& layer, const int64_t* taps, const NetRows& rows);

// As many threads as so many products deserve.
int net_threads(double products);

}  // namespace otcuda::cpu
