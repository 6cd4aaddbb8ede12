// SPDX-License-Identifier: Apache-2.0
#include "cpu/conv3.h"

#include <algorithm>

#include "common/alloc.h"
#include "common/net.h"
#include "common/simd.h"
#include "common/threads.h"
#include "cpu/conv3_kernels.h"

namespace otcuda::cpu {
namespace {

constexpr int64_t kTiles = 24;  // of a block: a point of them stays in the L1 or L2 cache
constexpr double kNanosecondsPerProduct = 0.02;

struct Kernels {
  const NetKernels& net;
  const Conv3Kernels& conv3;
};

Kernels kernels() {
#if OTCUDA_X86_LEVELS
  if (simd_level() == SimdLevel::avx512) return {net_kernels_avx512, conv3_kernels_avx512};
  if (simd_level() == SimdLevel::avx2) return {net_kernels_avx2, conv3_kernels_avx2};
#endif
  return {net_kernels_portable, conv3_kernels_portable};
}

// Where the tiles of a batch of pictures lie, counted through.
struct Tiles {
  int64_t across, a_picture, height, width;

  explicit Tiles(const Conv3Shape& shape)
      : across(shape.width / kNetTile),
        a_picture(shape.height / kNetTile * across),
        height(shape.height),
        width(shape.width) {}

  struct Place {
    int64_t picture, y, x;  // of its upper left pixel
  };
  Place of(int64_t t) const {
    const int64_t within = t % a_picture;
    return {t / a_picture, within / across * kNetTile, within % across * kNetTile};
  }
};

// The windows of tiles [from, to) as points [36][tiles][channels], `point` floats apart.
void gather(const Kernels& kernels, const Tiles& tiles, int64_t channels, const float* x,
            int64_t from, int64_t to, int64_t point, float* points) {
  const int64_t row = tiles.width * channels;
  Buffer<float> patch(kNetPoints * channels);
  for (int64_t t = from; t < to; ++t) {
    const Tiles::Place at = tiles.of(t);
    const float* picture = x + at.picture * tiles.height * row;
    float* out = points + (t - from) * channels;
    const bool inside =
        at.y > 0 && at.x > 0 && at.y + kNetTile < tiles.height && at.x + kNetTile < tiles.width;
    if (inside) {
      const float* window = picture + (at.y - 1) * row + (at.x - 1) * channels;
      kernels.net.input({row, channels, channels, point}, window, out);
      continue;
    }
    for (int64_t p = 0; p < kNetPoints; ++p) {
      const int64_t i = at.y - 1 + p / kNetWindow, j = at.x - 1 + p % kNetWindow;
      float* to_pixel = patch.data() + p * channels;
      if (i < 0 || j < 0 || i >= tiles.height || j >= tiles.width) {
        std::fill(to_pixel, to_pixel + channels, 0.0f);
      } else {
        const float* pixel = picture + i * row + j * channels;
        std::copy(pixel, pixel + channels, to_pixel);
      }
    }
    kernels.net.input({kNetWindow * channels, channels, channels, point}, patch.data(), out);
  }
}

// Kernels as points [36][blocks][inputs][16].
Buffer<float> transformed(const Kernels& kernels, const Conv3Shape& shape, const float* taps,
                          bool turned) {
  const int64_t size = shape.inputs * shape.outputs;
  Buffer<float> points(kNetPoints * size);
  const float* first = taps + (turned ? 8 * size : 0);
  const Conv3Taps at = {shape.inputs, turned ? -size : size, shape.outputs, size};
  parallel_for(
      shape.outputs / kNetBlock, 1,
      [&](int64_t from, int64_t to) {
        for (int64_t b = from; b < to; ++b) {
          kernels.conv3.kernel(at, first + b * kNetBlock,
                               points.data() + b * shape.inputs * kNetBlock);
        }
      },
      nullptr, threads_for(double(size)));
  return points;
}

int threads_of(const Conv3Shape& shape, const Tiles& tiles) {
  const double products =
      double(shape.pictures * tiles.a_picture) * kNetPoints * double(shape.inputs * shape.outputs);
  return threads_for(products * kNanosecondsPerProduct);
}

}  // namespace

void conv3(const Conv3Shape& shape, const float* x, const float* taps, bool turned,
           const float* bias, float* y) {
  const Kernels level = kernels();
  const Tiles tiles(shape);
  const Buffer<float> points = transformed(level, shape, taps, turned);
  const NetFinish finish = {bias, false, false};
  const int64_t n = shape.pictures * tiles.a_picture, size = shape.inputs * shape.outputs;
  const int64_t row = shape.width * shape.outputs, zero_tap = 0;
  parallel_for(
      n, std::min(kTiles, n),
      [&](int64_t from, int64_t to) {
        const int64_t count = to - from;
        // A line more than the tiles take, or all 36 points of a tile would share a cache set.
        const int64_t in_point = count * shape.inputs + kNetBlock;
        const int64_t out_point = count * shape.outputs + kNetBlock;
        Buffer<float> in(kNetPoints * in_point), out(kNetPoints * out_point);
        gather(level, tiles, shape.inputs, x, from, to, in_point, in.data());
        for (int64_t p = 0; p < kNetPoints; ++p) {
          for (int64_t o = 0; o < shape.outputs; o += kNetBlock) {
            const NetProducts layer = {points.data() + p * size + o * shape.inputs, nullptr,
                                       &zero_tap, 1, shape.inputs};
            level.net.products(layer, {in.data() + p * in_point, shape.inputs,
                                       out.data() + p * out_point + o, shape.outputs, count});
          }
        }
        for (int64_t t = from; t < to; ++t) {
          const Tiles::Place at = tiles.of(t);
          float* tile = y + at.picture * shape.height * row + at.y * row + at.x * shape.outputs;
          level.net.output({row, shape.outputs, shape.outputs, out_point}, finish,
                           out.data() + (t - from) * shape.outputs, nullptr, tile);
        }
      },
      nullptr, threads_of(shape, tiles));
}

void conv3_kernel_gradient(const Conv3Shape& shape, const float* x, const float* y, float* taps) {
  const Kernels level = kernels();
  const Tiles tiles(shape);
  const int64_t n = shape.pictures * tiles.a_picture, size = shape.inputs * shape.outputs;
  const int64_t x_point = n * shape.inputs + kNetBlock, y_point = n * shape.outputs + kNetBlock;
  const int threads = threads_of(shape, tiles);
  Buffer<float> in(kNetPoints * x_point), out(kNetPoints * y_point), gradient(kNetPoints * size);
  parallel_for(
      n, std::min<int64_t>(8, n),
      [&](int64_t from, int64_t to) {
        gather(level, tiles, shape.inputs, x, from, to, x_point, in.data() + from * shape.inputs);
        const int64_t row = shape.width * shape.outputs;
        for (int64_t t = from; t < to; ++t) {
          const Tiles::Place at = tiles.of(t);
          const float* tile =
              y + at.picture * shape.height * row + at.y * row + at.x * shape.outputs;
          level.conv3.spread({row, shape.outputs, shape.outputs, y_point}, tile,
                             out.data() + t * shape.outputs);
        }
      },
      nullptr, threads);
  const int64_t blocks = shape.outputs / kNetBlock;
  parallel_for(
      kNetPoints * blocks, blocks,
      [&](int64_t from, int64_t to) {
        for (int64_t k = from; k < to; ++k) {
          const int64_t p = k / blocks, b = k % blocks;
          const Conv3Outer product = {
              in.data() + p * x_point, shape.inputs, out.data() + p * y_point + b * kNetBlock,
              shape.outputs,           shape.inputs, n};
          level.conv3.outer(product, gradient.data() + p * size + b * shape.inputs * kNetBlock);
        }
      },
      nullptr, threads);
  const Conv3Taps at = {shape.inputs, size, shape.outputs, size};
  for (int64_t b = 0; b < blocks; ++b) {
    level.conv3.kernel_gradient(at, gradient.data() + b * shape.inputs * kNetBlock,
                                taps + b * kNetBlock);
  }
}

}  // namespace otcuda::cpu
