// SPDX-License-Identifier: Apache-2.0
// Weights of the context model: checked once, packed for the kernels.
#include <algorithm>
#include <cstdlib>

#include "common/check.h"
#include "common/tables.h"
#include "cpu/context_net.h"

namespace otcuda::cpu {
namespace {

constexpr int kMostChannels = 4096;
constexpr int kMostGroups = 8;
constexpr int kMostShift = 30;

using Arrays = ContextNet::Arrays;

// Where output o, tap t, input c of a layer lie in its packed weights.
int64_t packed_at(const ContextWeights& layer, int64_t o, int64_t t, int64_t c) {
  const int64_t pair = (o / kContextBlock * layer.n_taps + t) * layer.pairs + c / 2;
  return (pair * kContextBlock + o % kContextBlock) * 2 + c % 2;
}

// An empty layer with its bias and shifts, which are read from the arrays.
ContextWeights read_frame(const Arrays& arrays, const std::string& name, int64_t outputs,
                          int64_t inputs, int64_t n_taps) {
  const TensorView bias = arrays(name + ".bias"), shift = arrays(name + ".shift");
  check_tensor((name + ".bias").c_str(), bias, DType::i32, {outputs});
  check_tensor((name + ".shift").c_str(), shift, DType::u8, {outputs});
  ContextWeights layer;
  layer.outputs = outputs;
  layer.blocks = (outputs + kContextBlock - 1) / kContextBlock;
  layer.n_taps = n_taps;
  layer.pairs = (inputs + 1) / 2;
  layer.weights = Buffer<int16_t>(layer.width() * n_taps * layer.pairs * 2, 0);
  layer.bias = Buffer<int32_t>(layer.width(), 0);
  layer.half = Buffer<int32_t>(layer.width(), 0);
  layer.shift = Buffer<int32_t>(layer.width(), 0);
  for (int64_t o = 0; o < outputs; ++o) {
    const int by = shift.read<uint8_t>()[o];
    OTCUDA_CHECK(by <= kMostShift, name + ".shift[" + std::to_string(o) + "] is " +
                                       std::to_string(by) + ", expected 0 to 30");
    layer.bias[o] = bias.read<int32_t>()[o];
    layer.shift[o] = by;
    layer.half[o] = by > 0 ? int32_t(1) << (by - 1) : 0;
  }
  return layer;
}

// Adds weights [outputs, inputs, kernel] to a layer; tap_of[q] is the packed tap of kernel element
// q.
void add_weights(const Arrays& arrays, const std::string& name, int64_t inputs,
                 const std::vector<int>& tap_of, ContextWeights* layer) {
  const int64_t kernel = static_cast<int64_t>(tap_of.size());
  const int64_t side = kernel == 9 ? 3 : 1;
  const TensorView view = arrays(name);
  check_tensor(name.c_str(), view, DType::i8, {layer->outputs, inputs, side, side});
  const int8_t* weight = view.read<int8_t>();
  for (int64_t o = 0; o < layer->outputs; ++o) {
    for (int64_t c = 0; c < inputs; ++c) {
      for (int64_t q = 0; q < kernel; ++q) {
        layer->weights[packed_at(*layer, o, tap_of[q], c)] += *weight++;
      }
    }
  }
}

// No sum of products can leave int32, in whatever order it is added.
void check_sums(const std::string& name, const ContextWeights& layer) {
  for (int64_t o = 0; o < layer.outputs; ++o) {
    int64_t most = std::llabs(int64_t(layer.bias[o])) + layer.half[o];
    for (int64_t t = 0; t < layer.n_taps; ++t) {
      for (int64_t c = 0; c < 2 * layer.pairs; ++c) {
        most += kContextInputLimit * std::abs(int(layer.weights[packed_at(layer, o, t, c)]));
      }
    }
    OTCUDA_CHECK(most <= INT32_MAX, name + ": output " + std::to_string(o) + " can reach " +
                                        std::to_string(most) +
                                        ", expected a bias and weights whose sums fit in int32");
  }
}

std::vector<int> straight(int n, int from = 0) {
  std::vector<int> taps(n);
  for (int q = 0; q < n; ++q) taps[q] = from + q;
  return taps;
}

ContextWeights read_layer(const Arrays& arrays, const std::string& name, int64_t outputs,
                          int64_t inputs, int n_taps) {
  ContextWeights layer = read_frame(arrays, name, outputs, inputs, n_taps);
  add_weights(arrays, name + ".weight", inputs, straight(n_taps), &layer);
  check_sums(name, layer);
  return layer;
}

ContextWeights read_first(const Arrays& arrays, const ContextSizes& sizes) {
  ContextWeights layer = read_frame(arrays, "near", sizes.H, sizes.inputs(), 17);
  std::vector<int> far = straight(9, 9);
  far[4] = 4;  // both look at the position itself
  for (int q = 5; q < 9; ++q) --far[q];
  add_weights(arrays, "near.weight", sizes.inputs(), straight(9), &layer);
  add_weights(arrays, "far.weight", sizes.inputs(), far, &layer);
  check_sums("near + far", layer);
  return layer;
}

ContextSizes read_sizes(const Arrays& arrays) {
  const TensorView edges = arrays("edges");
  check_tensor("edges", edges, DType::i32, {any});
  const int64_t n = edges.shape[0];
  OTCUDA_CHECK(n >= 2 && n <= kMostGroups + 1,
               "edges has " + std::to_string(n) + " entries, expected 2 to 9");
  ContextSizes sizes;
  sizes.edges.assign(edges.read<int32_t>(), edges.read<int32_t>() + n);
  OTCUDA_CHECK(sizes.edges[0] == 0 && sizes.M() <= kMostChannels,
               "edges runs from " + std::to_string(sizes.edges[0]) + " to " +
                   std::to_string(sizes.M()) + ", expected 0 to at most 4096 channels");
  for (int64_t g = 1; g < n; ++g) {
    OTCUDA_CHECK(sizes.edges[g] > sizes.edges[g - 1], "edges does not rise");
  }
  const TensorView bias = arrays("deep.bias");
  check_tensor("deep.bias", bias, DType::i32, {any});
  OTCUDA_CHECK(bias.shape[0] >= 1 && bias.shape[0] <= kMostChannels,
               "deep.bias has " + std::to_string(bias.shape[0]) + " entries, expected 1 to 4096");
  sizes.H = static_cast<int>(bias.shape[0]);
  const TensorView near = arrays("near.weight");
  check_tensor("near.weight", near, DType::i8, {sizes.H, any, 3, 3});
  const int64_t coarse = near.shape[1] - sizes.M() - 2;
  const int first = sizes.edges[1];
  OTCUDA_CHECK(coarse % first == 0 && coarse >= first && coarse <= kContextMostCopies * first,
               "near.weight has " + std::to_string(near.shape[1]) + " inputs, expected " +
                   std::to_string(sizes.M() + 2) + " and 1 to 6 times " + std::to_string(first));
  sizes.copies = static_cast<int>(coarse / first);
  return sizes;
}

// The radius of a table, or an ArgumentError: 2 R + 1 symbols, zeros, the escape; the sum
// 2^precision.
int check_table(const uint16_t* frequency, int t, int precision) {
  int n = 0;
  int64_t sum = 0;
  while (n < kContextEscape && frequency[n] > 0) ++n;
  bool fits = n % 2 == 1 && frequency[kContextEscape] > 0;
  for (int column = 0; column < kContextColumns; ++column) {
    sum += frequency[column];
    fits &= column < n || column == kContextEscape || frequency[column] == 0;
  }
  OTCUDA_CHECK(fits && sum == int64_t(1) << precision,
               "tables[" + std::to_string(t) + "] sums to " + std::to_string(sum) +
                   ", expected an odd number of symbols from 0 on and an escape, with positive "
                   "frequencies that sum to the same 2^12 to 2^16 in each table");
  return n / 2;
}

ContextTables read_tables(const Arrays& arrays) {
  const TensorView view = arrays("tables");
  check_tensor("tables", view, DType::u16, {kContextScales, kContextColumns});
  const uint16_t* frequency = view.read<uint16_t>();
  ContextTables tables;
  int64_t sum = 0;
  for (int column = 0; column < kContextColumns; ++column) sum += frequency[column];
  tables.precision = 12;
  while (tables.precision < 16 && int64_t(1) << tables.precision < sum) ++tables.precision;
  for (int t = 0; t < kContextScales; ++t, frequency += kContextColumns) {
    tables.radius[t] = check_table(frequency, t, tables.precision);
    for (int column = 0; column < kContextColumns; ++column) {
      const uint32_t f = frequency[column];
      tables.cumulative[t][column + 1] = tables.cumulative[t][column] + f;
      tables.length[t][column] = f == 0 ? 0
                                        : (uint32_t(tables.precision) << 16) -
                                              uint32_t(log2_q56(f) >> (kTableLogBits - 16));
    }
  }
  return tables;
}

// What a symbol stands for: bits behind the point, and how far below the middle of its interval.
void read_reconstruction(const Arrays& arrays, ContextNet* net) {
  const TensorView bits = arrays("mean_bits"), centroids = arrays("centroids");
  check_tensor("mean_bits", bits, DType::i32, {1});
  check_tensor("centroids", centroids, DType::i16, {kContextScales});
  net->mean_bits = bits.read<int32_t>()[0];
  OTCUDA_CHECK(net->mean_bits >= kContextLeastMeanBits && net->mean_bits <= kContextMostMeanBits,
               "mean_bits is " + std::to_string(net->mean_bits) + ", expected 4 to 6");
  const int most = 1 << (net->mean_bits - 1);  // half a step
  for (int t = 0; t < kContextScales; ++t) {
    const int centroid = centroids.read<int16_t>()[t];
    OTCUDA_CHECK(centroid >= 0 && centroid <= most, "centroids[" + std::to_string(t) + "] is " +
                                                        std::to_string(centroid) +
                                                        ", expected 0 to " + std::to_string(most));
    net->centroid[t] = centroid;
  }
}

}  // namespace

int64_t ContextTables::bits_q16(int symbol, int scale_index) const {
  const int R = radius[scale_index], magnitude = std::abs(symbol);
  if (magnitude <= R) return length[scale_index][context_column(symbol)];
  const int order = context_escape_order(scale_index);
  int behind = 0;
  while (((magnitude - R - 1) >> order) + 1 >= 2 << behind) ++behind;
  return length[scale_index][kContextEscape] + (int64_t(1 + 2 * behind + 1 + order) << 16);
}

ContextNet::ContextNet(const Arrays& arrays) : sizes(read_sizes(arrays)) {
  const int H = sizes.H, M = sizes.M();
  first = read_first(arrays, sizes);
  deep = read_layer(arrays, "deep", H, H, 9);
  for (int g = 0; g < sizes.groups(); ++g) {
    const int a = sizes.edges[g], b = sizes.edges[g + 1];
    const std::string number = std::to_string(g);
    mix.push_back(read_layer(arrays, "mix." + number, H, H + a, 1));
    out.push_back(read_layer(arrays, "out." + number, 2 * (b - a), H, 1));
  }
  const TensorView view = arrays("offset");
  check_tensor("offset", view, DType::i16, {kContextPhases, M});
  offset = Buffer<int16_t>(kContextPhases * M);
  std::copy(view.read<int16_t>(), view.read<int16_t>() + kContextPhases * M, offset.data());
  tables = read_tables(arrays);
  read_reconstruction(arrays, this);
}

}  // namespace otcuda::cpu
