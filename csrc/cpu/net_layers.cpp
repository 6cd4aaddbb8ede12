// SPDX-License-Identifier: Apache-2.0
#include "cpu/net_layers.h"

#include <algorithm>
#include <numeric>

#include "common/check.h"
#include "common/simd.h"
#include "common/threads.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kMostChannels = 4096;
constexpr int64_t kTiles = 12;  // transformed at a time: with all weights they stay in the L2 cache
constexpr int64_t kPixels = 96;  // rows of a dense layer between two polls
constexpr double kNanosecondsPerProduct = 0.02;

const NetKernels& kernels() {
#if OTCUDA_X86_LEVELS
  if (simd_level() == SimdLevel::avx512) return net_kernels_avx512;
  if (simd_level() == SimdLevel::avx2) return net_kernels_avx2;
#endif
  return net_kernels_portable;
}

Buffer<float> read_bias(const NetArrays& arrays, const std::string& name,
                        const std::vector<int64_t>& order, int64_t outputs) {
  const TensorView view = arrays.get(name + ".bias");
  check_tensor((name + ".bias").c_str(), view, DType::f32, {outputs});
  Buffer<float> bias(net_padded(int64_t(order.size())), 0.0f);
  for (size_t o = 0; o < order.size(); ++o) {
    if (order[o] >= 0) bias[int64_t(o)] = view.read<float>()[order[o]];
  }
  return bias;
}

int64_t size_of(const NetArrays& arrays, const std::string& name, int axis) {
  const TensorView view = arrays.get(name + ".weight");
  check_tensor((name + ".weight").c_str(), view, DType::f32, {any, any, any, any});
  const int64_t size = view.shape[axis];
  OTCUDA_CHECK(size >= 1 && size <= kMostChannels,
               name + ".weight is " + shape_text(view) + ", expected 1 to 4096 channels");
  return size;
}

// kernel() of 16 outputs at once: kernels [9][16] to points [36][16].
void transform_kernels(const double (*kernel)[kNetBlock], float* points, int64_t point) {
  double columns[3][kNetWindow][kNetBlock];  // [column][row]
  for (int j = 0; j < 3; ++j) {
    for (int64_t l = 0; l < kNetBlock; ++l) {
      net_kernel_transform(kernel[j][l], kernel[3 + j][l], kernel[6 + j][l], &columns[j][0][l],
                           kNetBlock);
    }
  }
  for (int64_t i = 0; i < kNetWindow; ++i) {
    double u[kNetWindow][kNetBlock];
    for (int64_t l = 0; l < kNetBlock; ++l) {
      net_kernel_transform(columns[0][i][l], columns[1][i][l], columns[2][i][l], &u[0][l],
                           kNetBlock);
    }
    for (int64_t j = 0; j < kNetWindow; ++j) {
      float* to = points + (i * kNetWindow + j) * point;
      for (int64_t l = 0; l < kNetBlock; ++l) to[l] = static_cast<float>(u[j][l]);
    }
  }
}

// A block of tiles of one layer on its way from planes to planes.
class TileBlock {
 public:
  TileBlock(const NetConv& layer, const NetPlanes& x, int64_t n)
      : layer_(layer),
        x_(x),
        kernels_(kernels()),
        // A line more than the tiles take, or all 36 points of a tile would share a cache set.
        in_point_(n * x.channels + kNetBlock),
        out_point_(n * layer.outputs + kNetBlock),
        in_(kNetPoints * in_point_),
        out_(kNetPoints * out_point_) {}

  void run(int64_t from, int64_t to, const NetFinish& finish, const NetPlanes* skip,
           NetPlanes* out) {
    const int64_t across = x_.w / kNetTile;
    const NetWindow window = {x_.row(), x_.channels, x_.channels, in_point_};
    for (int64_t t = from; t < to; ++t) {
      const int64_t y = t / across * kNetTile, x = t % across * kNetTile;
      kernels_.input(window, x_.at(y - 1, x - 1), in_.data() + (t - from) * x_.channels);
    }
    for (int64_t p = 0; p < kNetPoints; ++p) {
      multiply(p, to - from);
      heartbeat();
    }
    const NetWindow tile = {out->row(), out->channels, out->channels, out_point_};
    for (int64_t t = from; t < to; ++t) {
      const int64_t y = t / across * kNetTile, x = t % across * kNetTile;
      kernels_.output(tile, finish, out_.data() + (t - from) * layer_.outputs,
                      skip != nullptr ? skip->at(y, x) : nullptr, out->at(y, x));
    }
  }

 private:
  void multiply(int64_t p, int64_t n) {
    const int64_t panel = layer_.inputs * kNetBlock, zero_tap = 0;
    for (int64_t o = 0; o < layer_.outputs; o += kNetBlock) {
      const float* weights =
          layer_.weights.data() + p * layer_.outputs * layer_.inputs + o / kNetBlock * panel;
      const NetProducts products = {weights, nullptr, &zero_tap, 1, layer_.inputs};
      kernels_.products(products, {in_.data() + p * in_point_, x_.channels,
                                   out_.data() + p * out_point_ + o, layer_.outputs, n});
    }
  }

  const NetConv& layer_;
  const NetPlanes& x_;
  const NetKernels& kernels_;
  const int64_t in_point_, out_point_;
  Buffer<float> in_, out_;
};

}  // namespace

NetPlanes::NetPlanes(int64_t h, int64_t w, int64_t channels)
    : h(h), w(w), channels(net_padded(channels)), data_((h + 2) * (w + 2) * this->channels) {
  std::fill(at(-1, -1), at(0, 0), 0.0f);
  for (int64_t y = 0; y + 1 < h; ++y) std::fill(at(y, w), at(y + 1, 0), 0.0f);
  std::fill(at(h - 1, w), at(h, w) + this->channels, 0.0f);
}

NetDense::NetDense(const NetArrays& arrays, const std::string& name, int64_t inputs, int64_t kernel,
                   bool has_bias, const std::vector<int64_t>& order)
    : inputs(inputs), kernel(kernel), outputs(net_padded(int64_t(order.size()))) {
  const TensorView view = arrays.get(name + ".weight");
  check_tensor((name + ".weight").c_str(), view, DType::f32, {any, inputs, kernel, kernel});
  const int64_t rows = view.shape[0], n_taps = kernel * kernel;
  for (const int64_t row : order) {
    OTCUDA_CHECK(row < rows, name + ".weight has " + std::to_string(rows) +
                                 " outputs, expected more than " + std::to_string(row));
  }
  weights = Buffer<float>(outputs * n_taps * inputs, 0.0f);
  for (int64_t o = 0; o < int64_t(order.size()); ++o) {
    if (order[o] < 0) continue;
    const float* row = view.read<float>() + order[o] * inputs * n_taps;
    float* block = weights.data() + o / kNetBlock * n_taps * inputs * kNetBlock + o % kNetBlock;
    for (int64_t c = 0; c < inputs; ++c) {
      for (int64_t t = 0; t < n_taps; ++t) {
        block[(t * inputs + c) * kNetBlock] = row[c * n_taps + t];
      }
    }
  }
  if (has_bias) bias = read_bias(arrays, name, order, rows);
}

NetConv::NetConv(const NetArrays& arrays, const std::string& name, int64_t inputs, int64_t outputs)
    : inputs(inputs),
      outputs(net_padded(outputs)),
      weights(kNetPoints * this->outputs * inputs),
      bias(read_bias(arrays, name, net_straight(outputs), outputs)) {
  const TensorView view = arrays.get(name + ".weight");
  check_tensor((name + ".weight").c_str(), view, DType::f32, {outputs, inputs, 3, 3});
  const float* weight = view.read<float>();
  parallel_for(
      this->outputs / kNetBlock, 1,
      [&](int64_t from, int64_t to) {
        for (int64_t b = from; b < to; ++b) {
          for (int64_t c = 0; c < inputs; ++c) {
            double kernel[9][kNetBlock] = {};
            for (int64_t l = 0; l < kNetBlock && b * kNetBlock + l < outputs; ++l) {
              const float* taps = weight + ((b * kNetBlock + l) * inputs + c) * 9;
              for (int t = 0; t < 9; ++t) kernel[t][l] = taps[t];
            }
            transform_kernels(kernel, weights.data() + (b * inputs + c) * kNetBlock,
                              this->outputs * inputs);
          }
          heartbeat();
        }
      },
      nullptr, net_threads(double(this->outputs * inputs) * 500));
}

std::vector<NetBlock> net_blocks(const NetArrays& arrays, const std::string& name, int begin,
                                 int64_t width) {
  std::vector<NetBlock> blocks;
  for (int k = begin;; ++k) {
    const std::string block = name + "." + std::to_string(k);
    if (!arrays.has(block + ".first.weight")) return blocks;
    blocks.emplace_back(arrays, block, width);
  }
}

std::vector<int64_t> net_straight(int64_t outputs) {
  std::vector<int64_t> order(static_cast<size_t>(outputs));
  std::iota(order.begin(), order.end(), int64_t(0));
  return order;
}

std::vector<int64_t> net_shuffled_rows(int64_t width, int64_t n, int64_t k) {
  std::vector<int64_t> rows;
  for (int64_t c = 0; c < width; ++c) rows.push_back(n * n * c + k);
  return rows;
}

int64_t net_outputs(const NetArrays& arrays, const std::string& name) {
  return size_of(arrays, name, 0);
}

void net_check_outputs(const std::string& name, int64_t size, int64_t expected) {
  OTCUDA_CHECK(size == expected, name + ".weight has " + std::to_string(size) +
                                     " outputs, expected " + std::to_string(expected));
}

int64_t net_inputs(const NetArrays& arrays, const std::string& name) {
  return size_of(arrays, name, 1);
}

int net_threads(double products) { return threads_for(products * kNanosecondsPerProduct); }

double net_products_of(const std::vector<NetBlock>& blocks, int64_t h, int64_t w) {
  double sum = 0.0;
  for (const NetBlock& block : blocks) sum += block.first.products(h, w) * 2;
  return sum;
}

void net_conv(const NetConv& layer, const NetPlanes& x, const NetActivation& activation,
              const NetPlanes* skip, NetPlanes* out, NetProgress& progress) {
  const NetFinish finish = {layer.bias.data(), activation.inside, activation.after};
  const int64_t n = x.h / kNetTile * (x.w / kNetTile);
  const double products = layer.products(x.h, x.w);
  const int threads = net_threads(products);
  const int64_t share = (n + threads - 1) / threads;
  const int64_t grain = std::min(kTiles, (share + 5) / 6 * 6);
  progress.step(products, [&](Poll& poll) {
    parallel_for(
        n, grain,
        [&](int64_t from, int64_t to) {
          TileBlock(layer, x, to - from).run(from, to, finish, skip, out);
        },
        &poll, threads);
  });
}

void net_conv_here(const NetConv& layer, const NetPlanes& x, const NetActivation& activation,
                   NetPlanes* out) {
  const NetFinish finish = {layer.bias.data(), activation.inside, activation.after};
  const int64_t n = x.h / kNetTile * (x.w / kNetTile);
  TileBlock tiles(layer, x, kTiles);
  for (int64_t t = 0; t < n; t += kTiles) {
    tiles.run(t, std::min(n, t + kTiles), finish, nullptr, out);
  }
}

void net_run_blocks(const std::vector<NetBlock>& blocks, NetPlanes* x, NetProgress& progress) {
  if (blocks.empty()) {
    for (int64_t y = 0; y < x->h; ++y) {
      for (float* v = x->at(y, 0); v != x->at(y, x->w); ++v) *v = std::max(*v, kNetSlope * *v);
    }
    return;
  }
  NetPlanes inner(x->h, x->w, x->channels);
  for (const NetBlock& block : blocks) {
    const bool last = &block == &blocks.back();
    net_conv(block.first, *x, {true, false}, nullptr, &inner, progress);
    net_conv(block.second, inner, {false, last}, x, x, progress);
  }
}

void net_products(const NetDense& layer, const int64_t* taps, const NetRows& rows) {
  const int64_t n_taps = layer.kernel * layer.kernel, panel = n_taps * layer.inputs * kNetBlock;
  for (int64_t r = 0; r < rows.n; r += kPixels) {
    for (int64_t o = 0; o < layer.outputs; o += kNetBlock) {
      const float* bias = layer.bias.size() > 0 ? layer.bias.data() + o : nullptr;
      const float* weights = layer.weights.data() + o / kNetBlock * panel;
      const NetProducts products = {weights, bias, taps, n_taps, layer.inputs};
      kernels().products(
          products, {rows.x + r * rows.x_stride, rows.x_stride, rows.out + r * rows.out_stride + o,
                     rows.out_stride, std::min(kPixels, rows.n - r)});
      heartbeat();
    }
  }
}

}  // namespace otcuda::cpu
